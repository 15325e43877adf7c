//! All operations, in the order of the router's page.

use serde_json::Value;
use utoipa::ToSchema;

use super::{AnthropicError, Document, ErrorBody, OllamaError, Operation};
use crate::anthropic::{MessagesAnswer, MessagesRequest, TokenCount};
use crate::llama_cpp::{Prompt, Props, TemplateRequest};
use crate::openai::chat::{ChatRequest, Completion};
use crate::openai::completions::{CompletionRequest, TextCompletion};
use crate::openai::embeddings::{EmbeddingList, EmbeddingRequest};
use crate::openai::models::{ModelList, ModelObject};
use crate::openai::responses::{ResponseObject, ResponsesRequest};
use crate::tokenize::{DetokenizeRequest, Text, TokenizeRequest, Tokens};
use crate::{health, ollama};

const SSE: Option<&str> = Some("text/event-stream");
const NDJSON: Option<&str> = Some("application/x-ndjson");

/// Errors of routes that run a model.
const RUNS: &[u16] = &[400, 404, 408, 413, 429, 500, 503];

/// A table of operations in one interface.
struct Table<'d> {
    document: &'d mut Document,
    tag: &'static str,
    error: Value,
}

impl Table<'_> {
    fn get<A: ToSchema>(&mut self, path: &'static str, summary: &'static str, errors: &'static [u16]) {
        let answer = self.document.schema::<A>();
        let operation = Operation { method: "get", path, tag: self.tag, summary, stream: None, errors };
        self.document.add(&operation, None, answer, &self.error);
    }

    fn post<R: ToSchema, A: ToSchema>(
        &mut self,
        path: &'static str,
        summary: &'static str,
        stream: Option<&'static str>,
    ) {
        let (request, answer) = (self.document.schema::<R>(), self.document.schema::<A>());
        let operation = Operation { method: "post", path, tag: self.tag, summary, stream, errors: RUNS };
        self.document.add(&operation, Some(request), answer, &self.error);
    }
}

/// The whole text.
pub(super) fn document() -> Value {
    let mut document = Document::new();
    let error = document.schema::<ErrorBody>();
    let mut server = Table { document: &mut document, tag: "Server", error: error.clone() };
    server.get::<health::Service>("/", "What this server is", &[]);
    server.get::<health::Status>("/health", "Whether requests are answered", &[503]);
    server.get::<health::Status>("/live", "Whether the process runs", &[]);
    server.get::<health::Status>("/ready", "Whether requests are answered", &[503]);
    server.post::<TokenizeRequest, Tokens>("/tokenize", "The tokens of a text", None);
    server.post::<DetokenizeRequest, Text>("/detokenize", "The text of tokens", None);
    let mut openai = Table { document: &mut document, tag: "OpenAI", error };
    openai.get::<ModelList>("/v1/models", "The models", &[]);
    openai.get::<ModelObject>("/v1/models/{id}", "A model", &[404]);
    openai.post::<ChatRequest, Completion>("/v1/chat/completions", "Answers a conversation", SSE);
    openai.post::<CompletionRequest, TextCompletion>("/v1/completions", "Goes on with a text", SSE);
    openai.post::<EmbeddingRequest, EmbeddingList>("/v1/embeddings", "Texts as vectors", None);
    openai.post::<ResponsesRequest, ResponseObject>("/v1/responses", "Answers an input", SSE);
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
    document.finish()
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
        assert!(document["paths"].as_object().unwrap().len() > 15);
    }
}
