//! How models write calls, told from their templates.

use serde_json::Value;

use super::Toolbox;

/// A way to write calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Qwen, Hermes, SmolLM, and models that know of none.
    Tagged,
    /// `{"name": …, "parameters": …}` alone: Llama 3.
    Bare,
}

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";

impl Format {
    /// The way of a template, and whether the template itself tells the model of its tools.
    pub(crate) fn of(template: &str) -> (Self, bool) {
        let knows_tools = template.contains("tools");
        if knows_tools && template.contains(OPEN) {
            (Self::Tagged, true)
        } else if knows_tools && template.contains("\"parameters\"") {
            (Self::Bare, true)
        } else {
            (Self::Tagged, false)
        }
    }

    /// The key of the arguments.
    pub(super) fn arguments(self) -> &'static str {
        match self {
            Self::Tagged => "arguments",
            Self::Bare => "parameters",
        }
    }

    /// The grammar of 1 to `most` calls, or of free text instead if `free`.
    pub(super) fn lark(self, schema: &Value, most: usize, free: bool) -> String {
        let (call, first, most) = match self {
            Self::Tagged => (format!("\"{OPEN}\\n\" json \"\\n{CLOSE}\""), '<', most),
            Self::Bare => ("json".to_owned(), '{', 1),
        };
        let calls =
            if most > 1 { format!("call (\"\\n\" call){{0,{}}}", most - 1) } else { "call".to_owned() };
        let (start, text) = if free {
            ("TEXT | calls", format!("TEXT: /[^{first}](.|\\n)*/\n"))
        } else {
            ("calls", String::new())
        };
        format!("start: {start}\ncalls: {calls}\ncall: {call}\njson: %json {schema}\n{text}")
    }
}

/// What a model is told of its tools whose template does not do so.
pub(crate) fn instructions(tools: &Toolbox) -> String {
    let list = tools.list();
    let lines: Vec<String> = list.as_array().into_iter().flatten().map(Value::to_string).collect();
    format!(
        "You can call functions. These are their signatures:\n<tools>\n{}\n</tools>\nTo call one, answer with its name and \
         arguments as JSON between tags, and nothing else:\n{OPEN}\n{{\"name\": <name>, \"arguments\": <arguments>}}\n{CLOSE}",
        lines.join("\n")
    )
}
