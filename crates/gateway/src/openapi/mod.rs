//! `/openapi.json`, and the page that shows it.

mod page;
mod table;

use std::sync::OnceLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

/// The error of every route but Ollama's and Anthropic's.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorObject,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorObject {
    message: String,
    r#type: String,
    /// The parameter that is to blame.
    param: Option<String>,
    code: Option<String>,
}

/// The error of Ollama's routes.
#[derive(Serialize, ToSchema)]
pub(crate) struct OllamaError {
    error: String,
}

/// The error of Anthropic's routes.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnthropicError {
    /// Always `error`.
    r#type: String,
    error: AnthropicErrorObject,
}

/// What went wrong, in Anthropic's words.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnthropicErrorObject {
    r#type: String,
    message: String,
}

/// The text in the making.
pub(crate) struct Document {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

/// One operation. Its parameters in the path are told from the path.
pub(crate) struct Operation {
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    /// Media type of the answer when it is streamed.
    stream: Option<&'static str>,
    /// Statuses beside 200.
    errors: &'static [u16],
}

impl Document {
    fn new() -> Self {
        Self { paths: Map::new(), schemas: Map::new() }
    }

    /// The reference to a type's schema, which is kept with all that it is made of.
    fn schema<T: ToSchema>(&mut self) -> Value {
        let mut schemas: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        for (name, schema) in schemas {
            if let Ok(schema) = serde_json::to_value(schema) {
                self.schemas.insert(name, schema);
            }
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }

    /// Adds an operation with these bodies.
    fn add(&mut self, operation: &Operation, request: Option<Value>, answer: Value, error: &Value) {
        let mut content = Map::new();
        content.insert("application/json".to_owned(), json!({ "schema": answer }));
        if let Some(stream) = operation.stream {
            content.insert(stream.to_owned(), json!({ "schema": { "type": "string" } }));
        }
        let mut responses = Map::new();
        responses.insert("200".to_owned(), json!({ "description": "Done", "content": content }));
        for status in operation.errors {
            let description = match status {
                400 => "The request is wrong; the parameter is named",
                404 => "There is no such thing",
                408 => "The body did not come in time",
                413 => "The body is too large",
                429 => "Too many requests are waiting",
                500 => "The server made a mistake",
                503 => "Loading or stopping",
                _ => "An error",
            };
            let body =
                json!({ "description": description, "content": { "application/json": { "schema": error } } });
            responses.insert(status.to_string(), body);
        }
        let mut value = json!({
            "tags": [operation.tag],
            "summary": operation.summary,
            "operationId": format!("{}{}", operation.method, operation.path.replace(['/', '{', '}', '.'], "_")),
            "responses": responses,
        });
        if let Some(request) = request {
            value["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": request } } });
        }
        let parameters: Vec<Value> = operation
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        let path = self.paths.entry(operation.path.to_owned()).or_insert_with(|| json!({}));
        path[operation.method] = value;
    }

    fn finish(self) -> Value {
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "EdgeLLM",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Language models where there is no GPU, behind the interfaces of OpenAI, Ollama and Anthropic.",
                "license": { "name": "MIT", "identifier": "MIT" },
            },
            "paths": self.paths,
            "components": { "schemas": self.schemas },
        })
    }
}

/// The text, made once.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(table::document)
}

/// The text.
pub(crate) async fn show() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document().to_string())
        .into_response()
}

/// The page.
pub(crate) async fn show_page() -> Response {
    let policy =
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page::html(document()))).into_response()
}
