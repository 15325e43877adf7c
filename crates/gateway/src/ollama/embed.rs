//! `/api/embed` and the older `/api/embeddings`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::nanos;
use super::options::Options;
use super::request::{Opened, open};
use crate::body;
use crate::embedding::embed;
use crate::error::ApiError;
use crate::openai::knobs::user;
use crate::openai::types::OneOrMany;
use crate::state::App;

/// Texts that vectors are wanted of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    input: OneOrMany,
    /// Texts that are too long are cut when it is true; else they are refused.
    truncate: Option<bool>,
    /// Only the length that the model's vectors have.
    dimensions: Option<usize>,
    #[serde(default, deserialize_with = "crate::body::object")]
    options: Option<Options>,
    /// How long the model is kept: seconds, or a text such as `5m`.
    #[schema(value_type = Option<String>)]
    keep_alive: Option<Value>,
}

/// Vectors of texts. Times are in nanoseconds.
#[derive(Serialize, ToSchema)]
pub(crate) struct Embeddings {
    model: String,
    embeddings: Vec<Vec<f32>>,
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: usize,
}

/// Vectors of texts.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<EmbedRequest>,
) -> Result<Json<Embeddings>, ApiError> {
    let opened = open(&app, request.model.as_deref(), request.keep_alive.as_ref()).await?;
    let Opened { handle, started, load, .. } = opened;
    let card = &handle.card;
    if request.dimensions.is_some_and(|dimensions| dimensions != card.dim) {
        return Err(ApiError::unsupported("dimensions", format!("this model's vectors have {}", card.dim)));
    }
    let options = request.options.unwrap_or_default();
    options.check(&handle)?;
    let mut prompts = Vec::new();
    for text in request.input.all() {
        let mut prompt = card.encode(&text)?;
        if request.truncate == Some(true) {
            prompt.truncate(card.context);
        }
        options.max_tokens(&handle, prompt.len())?;
        prompts.push(prompt);
    }
    let embedded = embed(handle.clone(), prompts, user(None), "input").await?;
    Ok(Json(Embeddings {
        model: card.name.clone(),
        embeddings: embedded.vectors,
        total_duration: nanos(started.elapsed()),
        load_duration: nanos(load),
        prompt_eval_count: embedded.tokens,
    }))
}

/// A text that a vector is wanted of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldEmbedRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    prompt: String,
    #[serde(default, deserialize_with = "crate::body::object")]
    options: Option<Options>,
    /// How long the model is kept: seconds, or a text such as `5m`.
    #[schema(value_type = Option<String>)]
    keep_alive: Option<Value>,
}

/// The vector of a text.
#[derive(Serialize, ToSchema)]
pub(crate) struct OldEmbedding {
    embedding: Vec<f32>,
}

/// The vector of a text.
pub(crate) async fn create_old(
    State(app): State<App>,
    body::Json(request): body::Json<OldEmbedRequest>,
) -> Result<Json<OldEmbedding>, ApiError> {
    let Opened { handle, .. } = open(&app, request.model.as_deref(), request.keep_alive.as_ref()).await?;
    let options = request.options.unwrap_or_default();
    options.check(&handle)?;
    let prompt = handle.card.encode(&request.prompt)?;
    options.max_tokens(&handle, prompt.len())?;
    let mut embedded = embed(handle, vec![prompt], user(None), "prompt").await?;
    Ok(Json(OldEmbedding { embedding: embedded.vectors.pop().unwrap_or_default() }))
}
