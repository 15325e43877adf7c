//! `tools` and `tool_choice`.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::tools::{Choice, Tool, Toolbox};

/// A tool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolDefinition {
    #[serde(rename = "type")]
    kind: ToolKind,
    function: FunctionDefinition,
}

/// Kinds of tools: functions alone.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ToolKind {
    Function,
}

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunctionDefinition {
    #[schema(pattern = "^[a-zA-Z0-9_.-]{1,64}$")]
    name: String,
    description: Option<String>,
    /// JSON schema of the arguments.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Accepted: arguments always follow their schema.
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    strict: Option<bool>,
}

/// Which tool is to be called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ToolChoice {
    /// `none`, `auto` or `required`.
    Mode(ToolMode),
    /// This one.
    Named(NamedTool),
}

/// Whether a tool must be called.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToolMode {
    None,
    Auto,
    Required,
}

/// A tool by its name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedTool {
    #[serde(rename = "type")]
    #[schema(inline)]
    kind: ToolKind,
    function: NamedFunction,
}

/// A function by its name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFunction {
    name: String,
}

impl ToolDefinition {
    /// The function, with a schema of no arguments where it has none.
    pub(crate) fn tool(self) -> Tool {
        let Self { kind: ToolKind::Function, function } = self;
        // Whether strict or not, the grammar holds the arguments to their schema.
        let FunctionDefinition { name, description, parameters, .. } = function;
        let empty = || json!({ "type": "object", "properties": {} });
        Tool { name, description, parameters: parameters.unwrap_or_else(empty) }
    }
}

/// The tools of a request, if the model may call some.
///
/// # Errors
/// 400 that names the parameter.
pub(super) fn toolbox(
    tools: Option<Vec<ToolDefinition>>,
    choice: Option<ToolChoice>,
    parallel: Option<bool>,
) -> Result<Option<Toolbox>, ApiError> {
    let choice = match choice {
        None | Some(ToolChoice::Mode(ToolMode::Auto)) => Choice::Auto,
        Some(ToolChoice::Mode(ToolMode::None)) => Choice::None,
        Some(ToolChoice::Mode(ToolMode::Required)) => Choice::Required,
        Some(ToolChoice::Named(NamedTool { kind: ToolKind::Function, function })) => {
            Choice::Named(function.name)
        }
    };
    Toolbox::new(
        tools.unwrap_or_default().into_iter().map(ToolDefinition::tool).collect(),
        choice,
        parallel.unwrap_or(true),
    )
}
