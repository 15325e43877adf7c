//! `/v1/embeddings`.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::completions::{Prompt, prompts};
use super::knobs::user;
use crate::body;
use crate::embedding::embed;
use crate::error::ApiError;
use crate::state::App;

/// Texts that vectors are wanted of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    input: Prompt,
    /// `float` (the default) or `base64`: little-endian f32.
    encoding_format: Option<EncodingFormat>,
    /// Only the length that the model's vectors have.
    dimensions: Option<usize>,
    user: Option<String>,
}

/// How a vector is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    Float,
    Base64,
}

/// Vectors of texts.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingList {
    object: &'static str,
    data: Vec<EmbeddingObject>,
    model: String,
    usage: EmbeddingUsage,
}

/// The vector of one text.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingObject {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// A vector of length one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Base64 of little-endian f32.
    Base64(String),
}

/// Tokens of all texts.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Vectors of texts.
pub(crate) async fn create(
    State(app): State<App>,
    body::Json(request): body::Json<EmbeddingRequest>,
) -> Result<Json<EmbeddingList>, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    let card = &handle.card;
    if request.dimensions.is_some_and(|dimensions| dimensions != card.dim) {
        return Err(ApiError::unsupported("dimensions", format!("this model's vectors have {}", card.dim)));
    }
    let prompts = prompts(card, request.input)?;
    let embedded = embed(handle.clone(), prompts, user(request.user.as_deref()), "input").await?;
    let base64 = request.encoding_format == Some(EncodingFormat::Base64);
    let object = |(index, vector): (usize, Vec<f32>)| EmbeddingObject {
        object: "embedding",
        index,
        embedding: if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        } else {
            Vector::Float(vector)
        },
    };
    Ok(Json(EmbeddingList {
        object: "list",
        data: embedded.vectors.into_iter().enumerate().map(object).collect(),
        model: card.name.clone(),
        usage: EmbeddingUsage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
    }))
}
