//! `/tokenize` and `/detokenize`, as llama.cpp's server has them.

use axum::Json;
use axum::extract::State;
use engine::tokenizer::EncodeOptions;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body;
use crate::error::ApiError;
use crate::state::App;

/// A text to be split.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    content: String,
    /// Whether what the vocabulary puts around texts is added; false by default.
    add_special: Option<bool>,
    /// Whether the names of control tokens in the text stand for them; true by default.
    parse_special: Option<bool>,
    /// Whether each token comes with its text; false by default.
    with_pieces: Option<bool>,
}

/// The tokens of a text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<TokenItem>,
}

/// A token.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TokenItem {
    /// Its id.
    Id(u32),
    /// Its id and its text.
    WithPiece {
        /// The id.
        id: u32,
        /// The text.
        piece: Piece,
    },
}

/// What a token adds to a text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Piece {
    /// A text.
    Text(String),
    /// Bytes, when they are no UTF-8 by themselves.
    Bytes(Vec<u8>),
}

/// Splits a text into tokens.
pub(crate) async fn tokenize(
    State(app): State<App>,
    body::Json(request): body::Json<TokenizeRequest>,
) -> Result<Json<Tokens>, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    let card = &handle.card;
    let options = EncodeOptions {
        add_special: request.add_special.unwrap_or(false),
        parse_special: request.parse_special.unwrap_or(true),
    };
    let ids = card.tokenizer()?.encode(&request.content, options);
    let ids = ids.map_err(|error| ApiError::param("content", error.to_string()))?;
    let item = |id: u32| {
        if !request.with_pieces.unwrap_or(false) {
            return TokenItem::Id(id);
        }
        let bytes = card.token_bytes(id);
        let piece = match std::str::from_utf8(bytes) {
            Ok(text) => Piece::Text(text.to_owned()),
            Err(_) => Piece::Bytes(bytes.to_vec()),
        };
        TokenItem::WithPiece { id, piece }
    };
    Ok(Json(Tokens { tokens: ids.into_iter().map(item).collect() }))
}

/// Tokens to be joined.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    /// Name of a model; the server's first by default.
    model: Option<String>,
    tokens: Vec<u32>,
}

/// A text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Text {
    content: String,
}

/// Joins tokens to a text.
pub(crate) async fn detokenize(
    State(app): State<App>,
    body::Json(request): body::Json<DetokenizeRequest>,
) -> Result<Json<Text>, ApiError> {
    let handle = app.models.get(request.model.as_deref()).await?;
    let content = handle.card.tokenizer()?.decode(&request.tokens);
    Ok(Json(Text { content: content.map_err(|error| ApiError::param("tokens", error.to_string()))? }))
}
