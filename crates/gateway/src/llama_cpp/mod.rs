//! What llama.cpp's server has besides the interfaces of others.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::anthropic::TokenCount;
use crate::body;
use crate::config::Origin;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::openai::chat::{self, ChatRequest};
use crate::openai::knobs::Knobs;
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
#[schema(as = LaidOut)]
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
    params: Params,
}

/// How tokens are chosen in OpenAI's interface where a request does not say.
#[derive(Serialize, ToSchema)]
pub(crate) struct Params {
    /// 2^32 - 1 where every request gets one by chance.
    seed: u64,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    /// Tokens of an answer at most; -1 until the context is full.
    n_predict: i64,
}

/// Stands for a seed by chance.
const RANDOM_SEED: u64 = 0xFFFF_FFFF;

impl Params {
    fn of(handle: &Handle) -> Result<Self, ApiError> {
        let sampling = Knobs::default().sampling(handle)?;
        Ok(Self {
            seed: handle.defaults.seed.unwrap_or(RANDOM_SEED),
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repeat_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            n_predict: handle.defaults.max_tokens.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        })
    }
}

fn path(origin: &Origin) -> String {
    match origin {
        Origin::Path(path, _) | Origin::Adapter { folder: path, .. } => path.display().to_string(),
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
    let prompt = prompt::layout(&handle.card, &messages)?.render(&messages, tools.as_ref(), begins)?;
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
        default_generation_settings: Settings { n_ctx: card.context, params: Params::of(&handle)? },
    }))
}
