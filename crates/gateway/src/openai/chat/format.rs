//! `response_format`.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::grammar::Grammar;

/// What the answer must be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    /// Anything.
    Text,
    /// A JSON object, of a schema if there is one.
    JsonObject {
        /// llama.cpp's shorter way to give one.
        #[schema(value_type = Option<Object>)]
        schema: Option<Value>,
    },
    /// JSON that fits a schema.
    JsonSchema {
        /// The schema and its name.
        json_schema: SchemaFormat,
    },
}

/// A schema and its name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaFormat {
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    name: Option<String>,
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    description: Option<String>,
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// Accepted: answers always follow the schema.
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    strict: Option<bool>,
}

impl ResponseFormat {
    /// The grammar of the answer, if it has one.
    ///
    /// # Errors
    /// 400 for a schema that cannot be followed.
    pub(crate) fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        let object = || json!({ "type": "object" });
        let grammar = match self {
            Self::Text => return Ok(None),
            Self::JsonObject { schema } => {
                Grammar::schema(&schema.unwrap_or_else(object), "response_format.schema")
            }
            Self::JsonSchema { json_schema: SchemaFormat { schema, .. } } => {
                Grammar::schema(&schema.unwrap_or_else(object), "response_format.json_schema.schema")
            }
        };
        grammar.map(Some)
    }
}
