//! All operations, in the order of the router's page.

use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{AnthropicError, Connected, Content, Document, ErrorBody, JSON, OllamaError, Operation, Upload};
use crate::anthropic::{MessagesAnswer, MessagesRequest, TokenCount};
use crate::batch::batches::{Batch, BatchRequest};
use crate::batch::files::{Deleted, Page, PageQuery};
use crate::batch::store::FileObject;
use crate::keys::audit::AuditQuery;
use crate::keys::routes::{AuditLog, KeyList, KeyObject, KeyQuery, KeyRequest, NewKeyObject};
use crate::llama_cpp::{Prompt, Props, TemplateRequest};
use crate::openai::chat::{ChatRequest, Completion};
use crate::openai::completions::{CompletionRequest, TextCompletion};
use crate::openai::embeddings::{EmbeddingList, EmbeddingRequest};
use crate::openai::models::{ModelList, ModelObject};
use crate::openai::responses::{ResponseObject, ResponsesRequest};
use crate::tokenize::{DetokenizeRequest, Text, TokenizeRequest, Tokens};
use crate::usage::routes::{AdminStats, DetailedStats, OwnStats, StatsQuery};
use crate::{health, ollama};

const SSE: Option<&str> = Some(EVENTS);
const EVENTS: &str = "text/event-stream";
const NDJSON: Option<&str> = Some("application/x-ndjson");

/// Errors of routes that run a model.
const RUNS: &[u16] = &[400, 404, 408, 413, 429, 500, 503];

/// Errors of routes that read or write the disk.
const DISK: &[u16] = &[400, 404, 500];

/// A table of operations in one interface.
struct Table<'d> {
    document: &'d mut Document,
    tag: &'static str,
    error: Value,
}

impl Table<'_> {
    /// An operation that is answered in JSON, and takes nothing.
    fn operation<A: ToSchema>(
        &mut self,
        method: &'static str,
        path: &'static str,
        summary: &'static str,
        errors: &'static [u16],
    ) -> Operation {
        Operation {
            method,
            path,
            tag: self.tag,
            summary,
            query: Vec::new(),
            request: None,
            status: 200,
            answers: vec![(JSON, self.document.schema::<A>())],
            errors,
            error: self.error.clone(),
        }
    }

    fn get<A: ToSchema>(&mut self, path: &'static str, summary: &'static str, errors: &'static [u16]) {
        let operation = self.operation::<A>("get", path, summary, errors);
        self.document.add(operation);
    }

    /// What is no JSON.
    fn get_other(
        &mut self,
        path: &'static str,
        summary: &'static str,
        media: &'static str,
        errors: &'static [u16],
    ) {
        let answers = vec![(media, json!({ "type": "string" }))];
        let operation = Operation { answers, ..self.operation::<ErrorBody>("get", path, summary, errors) };
        self.document.add(operation);
    }

    /// A list of which a part is asked for.
    fn list<T: ToSchema>(&mut self, path: &'static str, summary: &'static str)
    where
        Page<T>: ToSchema,
    {
        let operation = Operation {
            query: query::<PageQuery>(),
            answers: vec![(JSON, self.document.schema_as::<Page<T>>(&format!("{}Page", T::name())))],
            ..self.operation::<T>("get", path, summary, &[400, 500])
        };
        self.document.add(operation);
    }

    fn post<R: ToSchema, A: ToSchema>(
        &mut self,
        path: &'static str,
        summary: &'static str,
        stream: Option<&'static str>,
    ) {
        let mut operation = self.operation::<A>("post", path, summary, RUNS);
        operation.request = Some((JSON, self.document.schema::<R>()));
        // Of a stream of events the schema is that of one event.
        let text = json!({ "type": "string" });
        let event =
            json!({ "type": "object", "required": ["data"], "properties": { "event": text, "data": text } });
        let streamed = |media| -> Content { (media, if media == EVENTS { event } else { text }) };
        operation.answers.extend(stream.map(streamed));
        self.document.add(operation);
    }
}

/// Parameters of a query.
fn query<Q: IntoParams>() -> Vec<Value> {
    let parameters = Q::into_params(|| Some(utoipa::openapi::path::ParameterIn::Query));
    parameters.into_iter().filter_map(|parameter| serde_json::to_value(parameter).ok()).collect()
}

/// The whole text.
pub(super) fn document() -> Value {
    all().finish()
}

fn all() -> Document {
    let mut document = Document::new();
    let error = document.schema::<ErrorBody>();
    let mut server = Table { document: &mut document, tag: "Server", error: error.clone() };
    server.get::<health::Service>("/", "What this server is", &[]);
    server.get::<health::Status>("/health", "Whether requests are answered", &[503]);
    server.get::<health::Status>("/live", "Whether the process runs", &[]);
    server.get::<health::Status>("/ready", "Whether requests are answered", &[503]);
    server.get_other("/metrics", "Figures for Prometheus", "application/openmetrics-text", &[]);
    server.get_other("/docs", "This text for people", "text/html", &[]);
    server.post::<TokenizeRequest, Tokens>("/tokenize", "The tokens of a text", None);
    server.post::<DetokenizeRequest, Text>("/detokenize", "The text of tokens", None);
    let mut openai = Table { document: &mut document, tag: "OpenAI", error };
    openai.get::<ModelList>("/v1/models", "The models", &[]);
    openai.get::<ModelObject>("/v1/models/{id}", "A model", &[400, 404]);
    openai.post::<ChatRequest, Completion>("/v1/chat/completions", "Answers a conversation", SSE);
    openai.post::<CompletionRequest, TextCompletion>("/v1/completions", "Goes on with a text", SSE);
    openai.post::<EmbeddingRequest, EmbeddingList>("/v1/embeddings", "Texts as vectors", None);
    openai.post::<ResponsesRequest, ResponseObject>("/v1/responses", "Answers an input", SSE);
    files_and_batches(&mut openai);
    let mut socket = openai.operation::<Connected>(
        "get",
        "/v1/ws",
        "Several requests over one WebSocket; the schema is that of the server's messages",
        &[400, 403],
    );
    socket.status = 101;
    openai.document.add(socket);
    let error = document.schema::<AnthropicError>();
    let mut table = Table { document: &mut document, tag: "Anthropic", error };
    table.post::<MessagesRequest, MessagesAnswer>("/v1/messages", "Answers a conversation", SSE);
    table.post::<MessagesRequest, TokenCount>(
        "/v1/messages/count_tokens",
        "The length of a conversation",
        None,
    );
    let error = document.schema::<ErrorBody>();
    let mut table = Table { document: &mut document, tag: "llama.cpp", error };
    table.post::<TemplateRequest, Prompt>("/apply-template", "A conversation as the model reads it", None);
    table.post::<ChatRequest, TokenCount>(
        "/v1/chat/completions/input_tokens",
        "The length of a conversation",
        None,
    );
    table.get::<Props>("/props", "Facts of the server", &[503]);
    let error = document.schema::<OllamaError>();
    let mut table = Table { document: &mut document, tag: "Ollama", error };
    use ollama::{answer::Line, chat, embed, generate, models};
    table.post::<generate::GenerateRequest, Line>("/api/generate", "Answers a prompt", NDJSON);
    table.post::<chat::OllamaChatRequest, Line>("/api/chat", "Answers a conversation", NDJSON);
    table.post::<embed::EmbedRequest, embed::Embeddings>("/api/embed", "Texts as vectors", None);
    table.post::<embed::OldEmbedRequest, embed::OldEmbedding>("/api/embeddings", "A text as a vector", None);
    table.post::<models::ShowRequest, models::Shown>("/api/show", "A model in detail", None);
    table.get::<models::Tags>("/api/tags", "The models", &[]);
    table.get::<models::Tags>("/api/ps", "The models that are loaded", &[]);
    table.get::<models::Version>("/api/version", "The version of the server", &[]);
    table.get::<models::Names>("/api/models", "Names of the models", &[]);
    let error = document.schema::<ErrorBody>();
    keys_and_usage(&mut Table { document: &mut document, tag: "Keys and usage", error });
    document
}

/// Errors of routes that ask the database.
const DATABASE: &[u16] = &[400, 404, 503];

fn keys_and_usage(table: &mut Table<'_>) {
    let list = table.operation::<KeyList>("get", "/api/keys", "The keys, the newest first", DATABASE);
    table.document.add(Operation { query: query::<KeyQuery>(), ..list });
    let request = table.document.schema::<KeyRequest>();
    let create = table.operation::<NewKeyObject>("post", "/api/keys", "Makes a key", &[400, 408, 413, 503]);
    table.document.add(Operation { request: Some((JSON, request)), status: 201, ..create });
    table.get::<KeyObject>("/api/keys/{id}", "A key", DATABASE);
    let revoke = table.operation::<KeyObject>("delete", "/api/keys/{id}", "Revokes a key", DATABASE);
    table.document.add(revoke);
    let path = "/api/keys/{id}/rotate";
    let rotate = table.operation::<NewKeyObject>("post", path, "Gives a key another text", DATABASE);
    table.document.add(rotate);
    let audit = table.operation::<AuditLog>("get", "/api/admin/audit", "What admins did", DATABASE);
    table.document.add(Operation { query: query::<AuditQuery>(), ..audit });
    let own = table.operation::<OwnStats>("get", "/api/stats", "What the own keys have used", DATABASE);
    let path = "/api/stats/detailed";
    let detailed =
        table.operation::<DetailedStats>("get", path, "The same by model, route and day", DATABASE);
    let path = "/api/admin/stats";
    let all = table.operation::<AdminStats>("get", path, "What all keys have used", DATABASE);
    let csv = |path, summary, table: &mut Table<'_>| Operation {
        answers: vec![("text/csv", json!({ "type": "string" }))],
        ..table.operation::<ErrorBody>("get", path, summary, DATABASE)
    };
    let own_csv = csv("/api/stats/export.csv", "The own records", table);
    let all_csv = csv("/api/admin/stats/export.csv", "All records", table);
    for operation in [own, detailed, all, own_csv, all_csv] {
        table.document.add(Operation { query: query::<StatsQuery>(), ..operation });
    }
}

fn files_and_batches(table: &mut Table<'_>) {
    table.list::<FileObject>("/v1/files", "The files, the newest first");
    let upload = table.document.schema::<Upload>();
    let create = table.operation::<FileObject>("post", "/v1/files", "Takes a file in", &[400, 408, 413, 500]);
    table.document.add(Operation { request: Some(("multipart/form-data", upload)), ..create });
    table.get::<FileObject>("/v1/files/{id}", "A file", DISK);
    let delete = table.operation::<Deleted>("delete", "/v1/files/{id}", "Deletes a file", DISK);
    table.document.add(delete);
    table.get_other("/v1/files/{id}/content", "What is in a file", "application/octet-stream", DISK);
    table.post::<BatchRequest, Batch>("/v1/batches", "Takes requests that nobody waits for", None);
    table.list::<Batch>("/v1/batches", "The batches, the newest first");
    table.get::<Batch>("/v1/batches/{id}", "How far a batch is", DISK);
    let cancel = table.operation::<Batch>("post", "/v1/batches/{id}/cancel", "Stops a batch", DISK);
    table.document.add(cancel);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference leads to a schema of the text.
    fn check(value: &Value, schemas: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    let name = target.strip_prefix("#/components/schemas/").unwrap();
                    assert!(schemas.get(name).is_some(), "{target} leads nowhere");
                }
                fields.values().for_each(|value| check(value, schemas));
            }
            Value::Array(values) => values.iter().for_each(|value| check(value, schemas)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        check(&document, &document["components"]["schemas"]);
    }

    #[test]
    fn every_name_is_that_of_one_type() {
        assert_eq!(all().ambiguous, Vec::<String>::new());
    }

    /// Other names of paths that are in the text, and what is not for programs.
    const NOT_TOLD: [&str; 12] = [
        "/openapi.json",
        "/ui",
        "/ui/",
        "/ui/{*path}",
        "/v1/health",
        "/models",
        "/v1/models/{*id}",
        "/chat/completions",
        "/chat/completions/input_tokens",
        "/embeddings",
        "/responses",
        "/v1/models/{id}",
    ];

    #[test]
    fn every_route_is_in_the_text() {
        let document = document();
        let routes = include_str!("../router.rs").split(".route(\"").skip(1);
        let routes: Vec<&str> = routes.map(|rest| rest.split('"').next().unwrap()).collect();
        let paths = document["paths"].as_object().unwrap();
        let untold = routes.iter().filter(|route| !paths.contains_key(**route) && !NOT_TOLD.contains(route));
        assert_eq!(untold.collect::<Vec<_>>(), Vec::<&&str>::new());
        let unrouted = paths
            .keys()
            .filter(|path| !routes.contains(&path.as_str()) && !NOT_TOLD.contains(&path.as_str()));
        assert_eq!(unrouted.collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
