//! Who asks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limiter::{Limits, Meter};

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = KeyRole)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ask the models, and see the own usage.
    #[default]
    User,
    /// All, the keys and usage of others too.
    Admin,
    /// Read `/metrics` and nothing else: for Prometheus.
    Monitor,
}

impl Role {
    /// As it is stored.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::Monitor => "monitor",
        }
    }

    /// The role of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::User, Self::Admin, Self::Monitor].into_iter().find(|role| role.name() == name)
    }
}

/// Somebody who has shown who he is.
#[derive(Debug)]
pub(crate) struct Identity {
    /// What usage is written under and limits are counted for: a key's id, or `jwt:` and a token's subject.
    pub(crate) subject: Arc<str>,
    /// Whose key it is.
    pub(crate) owner: Arc<str>,
    pub(crate) role: Role,
    /// The models that may be asked; all for `None`.
    pub(crate) models: Option<Vec<String>>,
    /// What the key itself limits; the configuration's own limits fill in what it leaves open.
    pub(crate) limits: Limits,
    pub(crate) meter: Arc<Meter>,
}

impl Identity {
    /// Whether it may ask this model.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|name| name == model))
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}
