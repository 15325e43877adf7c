//! What one request used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Milliseconds of a day.
pub(super) const DAY: i64 = 86_400_000;

/// What one request used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsageRecord {
    /// A name that no other has.
    pub(crate) id: String,
    /// When it came, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Whose key or token asked.
    #[serde(with = "text")]
    pub(crate) subject: Arc<str>,
    /// Whose key it is.
    #[serde(with = "text")]
    pub(crate) owner: Arc<str>,
    /// The model that answered; empty when none did.
    #[serde(with = "text")]
    pub(crate) model: Arc<str>,
    /// The route.
    #[serde(with = "text")]
    pub(crate) endpoint: Arc<str>,
    /// HTTP's status; 499 for a client that has gone.
    pub(crate) status: u16,
    pub(crate) prompt_tokens: u64,
    /// Those of them that were known already.
    pub(crate) cached_tokens: u64,
    pub(crate) completion_tokens: u64,
    /// Microseconds from its arrival to its end.
    pub(crate) micros: u64,
}

impl UsageRecord {
    /// The day since 1970, in UTC.
    pub(super) fn day(&self) -> i64 {
        self.at.div_euclid(DAY)
    }

    pub(super) fn is_error(&self) -> bool {
        self.status >= 400
    }
}

/// Texts that many records share.
mod text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}
