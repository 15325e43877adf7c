//! `/api/tags`, `/api/show`, `/api/ps`, `/api/version`, and EdgeLLM's own `/api/models`.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::time;
use crate::body;
use crate::card::Card;
use crate::error::ApiError;
use crate::ids;
use crate::models::Slot;
use crate::state::App;

/// Models.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tags {
    models: Vec<Tag>,
}

/// A model. What only a loaded one tells is empty or 0 until then.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tag {
    name: String,
    model: String,
    modified_at: String,
    size: u64,
    /// Names the file by its name, size and time; not a hash of its content.
    digest: String,
    details: Details,
    #[serde(flatten)]
    running: Running,
}

/// What only `/api/ps` tells.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Running {
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_vram: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<usize>,
}

/// What a model is.
#[derive(Clone, Default, Serialize, ToSchema)]
pub(crate) struct Details {
    parent_model: String,
    format: String,
    family: String,
    families: Vec<String>,
    parameter_size: String,
    quantization_level: String,
}

fn details(card: &Card) -> Details {
    Details {
        parent_model: String::new(),
        format: card.format.to_lowercase(),
        family: card.architecture.clone(),
        families: vec![card.architecture.clone()],
        parameter_size: match card.parameters {
            n if n >= 1_000_000_000 => format!("{:.1}B", n as f64 / 1e9),
            n => format!("{:.2}M", n as f64 / 1e6),
        },
        quantization_level: card.quantization.clone(),
    }
}

fn digest(name: &str, size: u64, modified: u64) -> String {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    (0..4u8).map(|part| format!("{:016x}", hasher.hash_one((name, size, modified, part)))).collect()
}

fn tag(app: &App, slot: &Slot) -> Tag {
    let name = slot.source.name.clone();
    let loaded = slot.loaded();
    let card = loaded.as_ref().map(|handle| &handle.card);
    let (size, modified) = slot.source.file();
    let running = slot.idle().zip(card).map(|(idle, card)| Running {
        expires_at: Some(time(ids::now() + app.config.idle.saturating_sub(idle).as_secs())),
        size_vram: Some(0),
        context_length: Some(card.context),
    });
    Tag {
        digest: digest(&name, size, modified),
        model: name.clone(),
        name,
        modified_at: time(modified),
        size,
        details: card.map(details).unwrap_or_default(),
        running: running.unwrap_or_default(),
    }
}

/// All models.
pub(crate) async fn tags(State(app): State<App>) -> Json<Tags> {
    let models =
        app.models.visible().into_iter().map(|slot| Tag { running: Running::default(), ..tag(&app, &slot) });
    Json(Tags { models: models.collect() })
}

/// Those that are loaded.
pub(crate) async fn ps(State(app): State<App>) -> Json<Tags> {
    let loaded = app.models.visible().into_iter().filter(|slot| slot.loaded().is_some());
    Json(Tags { models: loaded.map(|slot| tag(&app, &slot)).collect() })
}

/// The version of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Version {
    version: &'static str,
}

/// The version of this server.
pub(crate) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

/// Names of models.
#[derive(Serialize, ToSchema)]
pub(crate) struct Names {
    models: Vec<Name>,
}

/// A model's name, and whether it is loaded.
#[derive(Serialize, ToSchema)]
pub(crate) struct Name {
    name: String,
    loaded: bool,
}

/// Names of all models, the default one first.
pub(crate) async fn names(State(app): State<App>) -> Json<Names> {
    let name = |slot: &Arc<Slot>| Name { name: slot.source.name.clone(), loaded: slot.loaded().is_some() };
    Json(Names { models: app.models.visible().iter().map(name).collect() })
}

/// Which model is to be shown.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowRequest {
    model: Option<String>,
    /// The older name of `model`.
    name: Option<String>,
    /// Only false: the vocabulary is not shown.
    verbose: Option<bool>,
}

/// A model in detail.
#[derive(Serialize, ToSchema)]
pub(crate) struct Shown {
    modelfile: String,
    parameters: String,
    template: String,
    details: Details,
    #[schema(value_type = Object)]
    model_info: Map<String, Value>,
    capabilities: Vec<&'static str>,
    modified_at: String,
}

/// A model in detail; it is loaded for that.
pub(crate) async fn show(
    State(app): State<App>,
    body::Json(request): body::Json<ShowRequest>,
) -> Result<Json<Shown>, ApiError> {
    if request.verbose == Some(true) {
        return Err(ApiError::unsupported("verbose", "the vocabulary is not shown"));
    }
    let name = request.model.or(request.name);
    let name = name.ok_or_else(|| ApiError::param("model", "this parameter is required"))?;
    let handle = app.models.get(Some(&name)).await?;
    let card = &handle.card;
    let family = &card.architecture;
    let mut capabilities = vec!["completion", "embedding"];
    if card.template.is_some() {
        capabilities.push("tools");
    }
    let info = [
        ("general.architecture".to_owned(), json!(family)),
        ("general.parameter_count".to_owned(), json!(card.parameters)),
        (format!("{family}.context_length"), json!(card.trained_context)),
        (format!("{family}.embedding_length"), json!(card.dim)),
        (format!("{family}.vocab_size"), json!(card.vocab_size)),
    ];
    Ok(Json(Shown {
        modelfile: format!("FROM {}", card.name),
        parameters: String::new(),
        template: card.template.as_ref().map(|t| t.source().to_owned()).unwrap_or_default(),
        details: details(card),
        model_info: info.into_iter().collect(),
        capabilities,
        modified_at: time(card.created),
    }))
}
