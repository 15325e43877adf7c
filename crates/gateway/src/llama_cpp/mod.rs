//! What llama.cpp's server has besides the interfaces of others.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::anthropic::TokenCount;
use crate::body;
use crate::config::Origin;
use crate::error::ApiError;
use crate::openai::chat::{self, ChatRequest};
use crate::prompt;
use crate::state::App;

/// A conversation to be laid out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    /// The conversation.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<Value>,
    /// Tools that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    /// Whether the text ends where the assistant's answer begins; true by default.
    add_generation_prompt: Option<bool>,
}

/// A conversation as the model reads it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Prompt {
    prompt: String,
}

/// Facts of a server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Props {
    model_path: String,
    /// Sequences that run at a time.
    total_slots: usize,
    chat_template: String,
    build_info: &'static str,
    default_generation_settings: Settings,
}

/// Facts of a sequence.
#[derive(Serialize, ToSchema)]
pub(crate) struct Settings {
    n_ctx: usize,
}

fn path(origin: &Origin) -> String {
    match origin {
        Origin::Path(path, _) => path.display().to_string(),
        Origin::Synthetic(..) | Origin::Null => String::new(),
    }
}

/// Lays out a conversation without answering it.
pub(crate) async fn apply_template(
    State(app): State<App>,
    body::Json(request): body::Json<TemplateRequest>,
) -> Result<Json<Prompt>, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    // Read as a chat would be: what is wrong there is wrong here.
    let chat: ChatRequest =
        body::convert(&serde_json::json!({ "messages": request.messages, "tools": request.tools }))?;
    let tools = chat
        .tools
        .as_ref()
        .filter(|tools| !tools.is_empty())
        .map(|_| Value::from(request.tools.unwrap_or_default()));
    let messages = chat::messages(chat.messages)?;
    let begins = request.add_generation_prompt.unwrap_or(true);
    let prompt = prompt::template(&handle.card)?.render(&messages, tools.as_ref(), begins)?;
    Ok(Json(Prompt { prompt }))
}

/// Counts the tokens of a conversation without answering it.
pub(crate) async fn input_tokens(
    State(app): State<App>,
    body::Json(request): body::Json<ChatRequest>,
) -> Result<Json<TokenCount>, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    let valid = chat::validate(request, &handle)?;
    Ok(Json(TokenCount { input_tokens: valid.jobs.first().map_or(0, |job| job.prompt.len()) }))
}

/// Tells facts of the default model.
pub(crate) async fn props(State(app): State<App>) -> Result<Json<Props>, ApiError> {
    let handle = app.models.get(None).await?;
    let card = &handle.card;
    Ok(Json(Props {
        model_path: app.models.slots().first().map_or_else(String::new, |slot| path(&slot.source.origin)),
        total_slots: app.config.parallel,
        chat_template: card
            .template
            .as_ref()
            .map_or_else(String::new, |template| template.source().to_owned()),
        build_info: chat::FINGERPRINT,
        default_generation_settings: Settings { n_ctx: card.context },
    }))
}
