//! The body of `/v1/messages`, and the chat that it means.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::message::{Content, InputMessage, plain};
use crate::error::ApiError;

/// A conversation to be answered, as Anthropic's interface has it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagesRequest {
    /// Name of a model.
    pub(crate) model: String,
    /// The conversation so far.
    messages: Vec<InputMessage>,
    /// Tokens at most.
    #[schema(minimum = 1)]
    max_tokens: Option<usize>,
    /// What the model shall be.
    system: Option<Content>,
    /// Texts that end the answer.
    #[serde(default)]
    pub(crate) stop_sequences: Vec<String>,
    pub(crate) stream: Option<bool>,
    #[schema(minimum = 0, maximum = 1)]
    temperature: Option<f32>,
    top_k: Option<usize>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// Tools that the model may call.
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    #[serde(default, deserialize_with = "crate::body::object")]
    metadata: Option<Metadata>,
    /// Only `disabled`: a model that thinks does so by its template.
    #[serde(default, deserialize_with = "crate::body::object")]
    thinking: Option<Thinking>,
    /// The form of the answer.
    #[serde(default, deserialize_with = "crate::body::object")]
    output_config: Option<OutputConfig>,
    /// Accepted: prompts with the same beginning share it anyway.
    #[schema(value_type = Option<Object>)]
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    cache_control: Option<Map<String, Value>>,
    /// Only `auto` and `standard_only`.
    service_tier: Option<String>,
}

/// Whether the model thinks before it answers.
#[derive(Debug, Deserialize, ToSchema)]
struct Thinking {
    #[serde(rename = "type")]
    #[schema(pattern = "^disabled$")]
    kind: String,
}

/// Who asks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Metadata {
    /// Whose request it is: users get equal shares of the server.
    user_id: Option<String>,
}

/// What the answer must be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OutputConfig {
    format: Option<OutputFormat>,
}

/// The answer is JSON of this schema.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum OutputFormat {
    JsonSchema {
        #[schema(value_type = Object)]
        schema: Value,
    },
}

/// A tool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AnthropicTool)]
struct Tool {
    name: String,
    description: Option<String>,
    #[schema(value_type = Object)]
    input_schema: Map<String, Value>,
    /// Only `custom`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Accepted: calls always follow the schema.
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    strict: Option<bool>,
    /// Accepted; see above.
    #[schema(value_type = Option<Object>)]
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    cache_control: Option<Map<String, Value>>,
}

/// Whether and which tool is called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = AnthropicToolChoice)]
enum ToolChoice {
    Auto { disable_parallel_tool_use: Option<bool> },
    Any { disable_parallel_tool_use: Option<bool> },
    Tool { name: String, disable_parallel_tool_use: Option<bool> },
    None {},
}

impl MessagesRequest {
    /// The body of a chat that means the same.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn into_chat(self, needs_max_tokens: bool) -> Result<Value, ApiError> {
        if needs_max_tokens && self.max_tokens.is_none() {
            return Err(ApiError::param("max_tokens", "this parameter is required"));
        }
        if self.temperature.is_some_and(|t| !(0.0..=1.0).contains(&t)) {
            return Err(ApiError::param("temperature", "it must be in 0..=1"));
        }
        if self.thinking.is_some_and(|thinking| thinking.kind != "disabled") {
            return Err(ApiError::unsupported("thinking", "this model does not think apart"));
        }
        if self.service_tier.as_ref().is_some_and(|tier| !["auto", "standard_only"].contains(&tier.as_str()))
        {
            return Err(ApiError::unsupported("service_tier", "there is only one"));
        }
        let mut messages = Vec::new();
        if let Some(system) = self.system {
            messages.push(json!({ "role": "system", "content": plain(system, "system")? }));
        }
        for (i, message) in self.messages.into_iter().enumerate() {
            message.append(&format!("messages[{i}]"), &mut messages)?;
        }
        let mut chat = json!({ "model": self.model, "messages": messages });
        let fields = [
            ("max_tokens", json!(self.max_tokens)),
            ("temperature", json!(self.temperature)),
            ("top_p", json!(self.top_p)),
            ("top_k", json!(self.top_k)),
            ("user", json!(self.metadata.and_then(|metadata| metadata.user_id))),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            chat[name] = value;
        }
        if !self.stop_sequences.is_empty() {
            chat["stop"] = json!(self.stop_sequences);
        }
        if let Some(OutputFormat::JsonSchema { schema }) = self.output_config.and_then(|config| config.format)
        {
            let named = json!({ "name": "output", "schema": schema, "strict": true });
            chat["response_format"] = json!({ "type": "json_schema", "json_schema": named });
        }
        if let Some(tools) = self.tools.filter(|tools| !tools.is_empty()) {
            chat["tools"] =
                tools.into_iter().enumerate().map(|(i, tool)| tool.into_chat(i)).collect::<Result<_, _>>()?;
            if let Some(choice) = self.tool_choice {
                choice.put_into(&mut chat);
            }
        }
        Ok(chat)
    }
}

impl Tool {
    fn into_chat(self, index: usize) -> Result<Value, ApiError> {
        if self.kind.is_some_and(|kind| kind != "custom") {
            return Err(ApiError::unsupported(
                format!("tools[{index}].type"),
                "only custom tools can be called",
            ));
        }
        let mut function = json!({ "name": self.name, "parameters": self.input_schema });
        if let Some(description) = self.description {
            function["description"] = description.into();
        }
        Ok(json!({ "type": "function", "function": function }))
    }
}

impl ToolChoice {
    fn put_into(self, chat: &mut Value) {
        let (choice, alone) = match self {
            Self::Auto { disable_parallel_tool_use } => (json!("auto"), disable_parallel_tool_use),
            Self::Any { disable_parallel_tool_use } => (json!("required"), disable_parallel_tool_use),
            Self::Tool { name, disable_parallel_tool_use } => {
                (json!({ "type": "function", "function": { "name": name } }), disable_parallel_tool_use)
            }
            Self::None {} => (json!("none"), None),
        };
        chat["tool_choice"] = choice;
        if alone == Some(true) {
            chat["parallel_tool_calls"] = json!(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: Value) -> Result<Value, ApiError> {
        serde_json::from_value::<MessagesRequest>(body).unwrap().into_chat(true)
    }

    #[test]
    fn a_dialogue_with_tools_becomes_a_chat() {
        let found = chat(json!({
            "model": "m", "max_tokens": 9, "system": [{ "type": "text", "text": "Be brief.", "cache_control": { "type": "ephemeral" } }],
            "stop_sequences": ["END"], "metadata": { "user_id": "u" },
            "tools": [{ "name": "weather", "description": "d", "input_schema": { "type": "object" } }],
            "tool_choice": { "type": "tool", "name": "weather", "disable_parallel_tool_use": true },
            "messages": [
                { "role": "user", "content": "Oslo?" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "Hm.", "signature": "s" }, { "type": "text", "text": "I look." },
                    { "type": "tool_use", "id": "t1", "name": "weather", "input": { "city": "Oslo" } } ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [{ "type": "text", "text": "down" }] },
                    { "type": "text", "text": "And now?" } ] }
            ]
        }));
        let expected = json!({
            "model": "m", "max_tokens": 9, "user": "u", "stop": ["END"], "parallel_tool_calls": false,
            "tools": [{ "type": "function", "function": { "name": "weather", "description": "d", "parameters": { "type": "object" } } }],
            "tool_choice": { "type": "function", "function": { "name": "weather" } },
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "Oslo?" },
                { "role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [
                    { "id": "t1", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"Oslo\"}" } } ] },
                { "role": "tool", "tool_call_id": "t1", "content": "Error: down" },
                { "role": "user", "content": "And now?" }
            ]
        });
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let message = json!({ "role": "user", "content": "a" });
        let picture = json!({ "role": "user", "content": [{ "type": "image", "source": {} }] });
        let call = json!({ "role": "user", "content": [{ "type": "tool_use", "id": "a", "name": "b", "input": {} }] });
        for (body, param) in [
            (json!({ "model": "m", "messages": [message] }), "max_tokens"),
            (
                json!({ "model": "m", "max_tokens": 1, "messages": [message], "temperature": 1.5 }),
                "temperature",
            ),
            (
                json!({ "model": "m", "max_tokens": 1, "messages": [message, picture] }),
                "messages[1].content[0]",
            ),
            (json!({ "model": "m", "max_tokens": 1, "messages": [call] }), "messages[0].content[0]"),
            (
                json!({ "model": "m", "max_tokens": 1, "messages": [message],
                     "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
                "thinking",
            ),
            (
                json!({ "model": "m", "max_tokens": 1, "messages": [message], "service_tier": "gold" }),
                "service_tier",
            ),
            (
                json!({ "model": "m", "max_tokens": 1, "messages": [message],
                     "tools": [{ "type": "bash_20250124", "name": "bash", "input_schema": {} }] }),
                "tools[0].type",
            ),
        ] {
            assert_eq!(chat(body).unwrap_err().param.as_deref(), Some(param));
        }
    }
}
