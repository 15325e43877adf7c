//! `/openapi.json`, and the page that shows it.

mod page;
mod table;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::auth::{METERED, OPEN};

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

/// What a connection carries. A client sends `{"type": "request", "id", "path", "body"}` and `{"type": "cancel", "id"}`; the
/// server these messages.
#[derive(Serialize, ToSchema)]
pub(crate) struct Connected {
    /// `event`, `response`, `done`, `error` or `cancelled`.
    r#type: String,
    /// The request's.
    id: String,
    /// Of `event` and `response`: what the request's path answers.
    data: Option<serde_json::Value>,
    /// Of `error`: HTTP's status.
    status: Option<u16>,
    /// Of `error`: the error of the request's path.
    error: Option<serde_json::Value>,
}

/// Media type of most bodies.
const JSON: &str = "application/json";

/// A file that is sent to `/v1/files`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Upload {
    /// The content, a request a line.
    #[schema(format = Binary)]
    file: String,
    /// Always `batch`.
    #[schema(pattern = "^batch$")]
    purpose: String,
}

/// The text in the making.
pub(crate) struct Document {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    /// Names that two types have.
    #[cfg(test)]
    ambiguous: Vec<String>,
}

/// A schema and the media type of what has it.
pub(crate) type Content = (&'static str, Value);

/// One operation. Its parameters in the path are told from the path.
pub(crate) struct Operation {
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    /// Parameters of the query, as the text has them.
    query: Vec<Value>,
    request: Option<Content>,
    /// The status when all went well.
    status: u16,
    /// Its bodies: one for each media type.
    answers: Vec<Content>,
    /// Other statuses, and the body of all of them.
    errors: &'static [u16],
    error: Value,
}

impl Document {
    fn new() -> Self {
        Self {
            paths: Map::new(),
            schemas: Map::new(),
            #[cfg(test)]
            ambiguous: Vec::new(),
        }
    }

    /// The reference to a type's schema, which is kept with all that it is made of.
    fn schema<T: ToSchema>(&mut self) -> Value {
        self.schema_as::<T>(&T::name())
    }

    /// The same, for a type whose own name is also that of another.
    fn schema_as<T: ToSchema>(&mut self, name: &str) -> Value {
        let mut schemas: Vec<(String, RefOr<Schema>)> = vec![(name.to_owned(), T::schema())];
        T::schemas(&mut schemas);
        for (name, schema) in schemas {
            let Ok(schema) = serde_json::to_value(schema) else { continue };
            #[cfg(test)]
            if self.schemas.get(&name).is_some_and(|other| *other != schema) {
                self.ambiguous.push(name.clone());
            }
            self.schemas.insert(name, schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    /// Adds an operation.
    fn add(&mut self, operation: Operation) {
        let Operation { method, path, tag, summary, query, request, status, answers, errors, error } =
            operation;
        let content = |contents: Vec<Content>| -> Map<String, Value> {
            let of = |(media, schema): Content| (media.to_owned(), json!({ "schema": schema }));
            contents.into_iter().map(of).collect()
        };
        let mut responses = Map::new();
        responses.insert(status.to_string(), json!({ "description": "Done", "content": content(answers) }));
        let closed: &[u16] = if OPEN.contains(&path) { &[] } else { &[401, 403] };
        let limited: &[u16] = if METERED.contains(&path) { &[429] } else { &[] };
        let errors: BTreeSet<&u16> = errors.iter().chain(closed).chain(limited).collect();
        for status in errors {
            let description = match status {
                400 => "The request is wrong; the parameter is named",
                401 => "Nobody is known by this key, or there is none",
                403 => "Not for this client",
                404 => "There is no such thing",
                408 => "The body did not come in time",
                413 => "The body is too large",
                429 => "Too many requests are waiting, or a limit is reached",
                500 => "The server made a mistake",
                503 => "Loading or stopping, or the database is gone",
                _ => "An error",
            };
            let body = content(vec![(JSON, error.clone())]);
            responses.insert(status.to_string(), json!({ "description": description, "content": body }));
        }
        let mut value = json!({
            "tags": [tag],
            "summary": summary,
            "operationId": format!("{method}{}", path.replace(['/', '{', '}', '.', '-'], "_")),
            "responses": responses,
        });
        if let Some(request) = request {
            value["requestBody"] = json!({ "required": true, "content": content(vec![request]) });
        }
        if OPEN.contains(&path) {
            value["security"] = json!([]);
        }
        let of_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(
            |name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        );
        let parameters: Vec<Value> = of_path.chain(query).collect();
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        self.paths.entry(path.to_owned()).or_insert_with(|| json!({}))[method] = value;
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
            "security": [{ "bearer": [] }, { "key": [] }],
            "paths": self.paths,
            "components": {
                "schemas": self.schemas,
                "securitySchemes": {
                    "bearer": { "type": "http", "scheme": "bearer", "description": "An API key, or a token (JWT)" },
                    "key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
                },
            },
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
