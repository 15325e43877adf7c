//! `/v1/models`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::body;
use crate::error::ApiError;
use crate::models::Slot;
use crate::state::App;

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelObject {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Facts of a loaded model.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
}

/// Facts of a loaded model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Meta {
    n_vocab: usize,
    n_ctx: usize,
    n_ctx_train: usize,
    n_embd: usize,
    n_params: u64,
    size: u64,
}

/// All models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

fn object(slot: &Slot) -> ModelObject {
    let loaded = slot.loaded();
    let card = loaded.as_ref().map(|handle| &handle.card);
    ModelObject {
        id: slot.source.name.clone(),
        object: "model",
        created: card.map_or(0, |card| card.created),
        owned_by: "edgellm",
        meta: card.map(|card| Meta {
            n_vocab: card.vocab_size,
            n_ctx: card.context,
            n_ctx_train: card.trained_context,
            n_embd: card.dim,
            n_params: card.parameters,
            size: card.file_bytes,
        }),
    }
}

/// The models that can be asked for.
pub(crate) async fn list(State(app): State<App>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: app.models.visible().iter().map(|slot| object(slot)).collect() })
}

/// One of them.
pub(crate) async fn get(
    State(app): State<App>,
    body::Path(id): body::Path,
) -> Result<Json<ModelObject>, ApiError> {
    Ok(Json(object(&*app.models.find(&id)?)))
}
