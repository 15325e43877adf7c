//! Tools that a model may call: what it is told of them, what it may write, and what its text means.

mod call;
mod format;

use serde_json::{Value, json};

pub(crate) use call::{Call, Piece, Splitter};
pub(crate) use format::{Format, instructions};

use crate::error::ApiError;
use crate::grammar::{Grammar, plain};
use crate::limits;

/// A function that a model may call.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// JSON schema of its arguments.
    pub(crate) parameters: Value,
}

/// Whether the model must call one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It must not.
    None,
    /// As it likes.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// The tools of a request.
#[derive(Debug, Clone)]
pub(crate) struct Toolbox {
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    /// Whether it may call several at once.
    pub(crate) parallel: bool,
}

/// Calls of one answer at most.
const MOST_CALLS: usize = 8;

impl Toolbox {
    /// Tools with names as OpenAI allows them.
    ///
    /// # Errors
    /// 400 that names the tool, or the choice of one that there is not.
    pub(crate) fn new(tools: Vec<Tool>, choice: Choice, parallel: bool) -> Result<Option<Self>, ApiError> {
        if tools.len() > limits::TOOLS {
            return Err(ApiError::param("tools", format!("at most {} tools", limits::TOOLS)));
        }
        for (i, tool) in tools.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if tool.name.is_empty() || tool.name.len() > 64 || !tool.name.chars().all(plain) {
                let message = "a name has 1 to 64 letters, digits, underscores and dashes";
                return Err(ApiError::param(format!("tools[{i}].function.name"), message));
            }
            if !tool.parameters.is_object() {
                return Err(ApiError::param(
                    format!("tools[{i}].function.parameters"),
                    "a schema is an object",
                ));
            }
        }
        match &choice {
            Choice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
                return Err(ApiError::param("tool_choice", format!("there is no tool {name:?}")));
            }
            Choice::Required if tools.is_empty() => {
                return Err(ApiError::param("tool_choice", "there are no tools to choose from"));
            }
            _ => {}
        }
        Ok((!tools.is_empty() && choice != Choice::None).then_some(Self { tools, choice, parallel }))
    }

    /// The tools as templates and models are told of them: OpenAI's list.
    pub(crate) fn list(&self) -> Value {
        let one = |tool: &Tool| {
            json!({
                "type": "function",
                "function": { "name": tool.name, "description": tool.description, "parameters": tool.parameters },
            })
        };
        self.tools.iter().map(one).collect()
    }

    /// What the answer may be.
    ///
    /// # Errors
    /// 400 for a schema that cannot be followed.
    pub(crate) fn grammar(&self, format: Format) -> Result<Grammar, ApiError> {
        let named = |tool: &&Tool| match &self.choice {
            Choice::Named(name) => tool.name == *name,
            _ => true,
        };
        let calls = self.tools.iter().filter(named).map(|tool| {
            json!({
                "type": "object",
                "properties": { "name": { "const": tool.name }, format.arguments(): tool.parameters },
                "required": ["name", format.arguments()],
                "additionalProperties": false,
            })
        });
        let mut calls: Vec<Value> = calls.collect();
        let schema = if calls.len() == 1 { calls.swap_remove(0) } else { json!({ "anyOf": calls }) };
        let schema = plain(&schema, "tools")?;
        let several = self.parallel && !matches!(self.choice, Choice::Named(_));
        let most = if several { MOST_CALLS } else { 1 };
        let free = self.choice == Choice::Auto;
        Grammar::lark(format.lark(&schema, most, free), "tools")
    }
}
