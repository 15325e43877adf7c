//! The body of `/v1/responses`, and the chat that it means.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::input::Input;
use crate::config::SamplingDefaults;
use crate::error::ApiError;
use crate::openai::knobs::{TEMPERATURE, TOP_P};

/// Something to be answered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponsesRequest {
    /// Name of a model; the server's first by default.
    pub(crate) model: Option<String>,
    /// A text, or a conversation.
    input: Input,
    /// What the model shall be.
    instructions: Option<String>,
    pub(crate) stream: Option<bool>,
    #[serde(default, deserialize_with = "crate::body::object")]
    stream_options: Option<StreamOptions>,
    /// Tokens at most.
    #[schema(minimum = 1)]
    max_output_tokens: Option<usize>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f32>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// Tools that the model may call.
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    #[serde(default, deserialize_with = "crate::body::object")]
    text: Option<TextOptions>,
    /// Given back with the answer.
    metadata: Option<HashMap<String, String>>,
    user: Option<String>,
    safety_identifier: Option<String>,
    /// Accepted; prompts with the same beginning share it whatever the key.
    #[expect(dead_code, reason = "accepted, and nothing follows from it")]
    prompt_cache_key: Option<String>,
    /// Only without effort or summary: a model that thinks does so by its template.
    #[serde(default, deserialize_with = "crate::body::object")]
    reasoning: Option<Reasoning>,
    /// Accepted and empty: there is nothing more to tell.
    include: Option<Vec<String>>,
    /// Only false, or left out: nothing is stored.
    store: Option<bool>,
    /// Only `disabled`: a prompt is never cut.
    truncation: Option<String>,
    /// Only `auto` and `default`.
    service_tier: Option<String>,
    /// Only false.
    background: Option<bool>,
    /// Cannot be done: nothing is stored.
    previous_response_id: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResponsesStreamOptions)]
struct StreamOptions {
    /// Only false: nothing is added to hide lengths.
    include_obfuscation: Option<bool>,
}

/// How much is thought.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResponsesReasoning)]
struct Reasoning {
    /// Only `none`.
    effort: Option<String>,
    /// Must be null.
    #[schema(max_length = 0)]
    summary: Option<String>,
}

/// A tool.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResponsesTool)]
pub(crate) struct Tool {
    #[serde(rename = "type")]
    #[schema(pattern = "^function$")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
    strict: Option<bool>,
}

/// Whether and which tool is called: a mode, or a function by name.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ResponsesToolChoice)]
enum ToolChoice {
    Mode(Mode),
    Function {
        #[serde(rename = "type")]
        kind: FunctionKind,
        name: String,
    },
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    None,
    Auto,
    Required,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum FunctionKind {
    Function,
}

/// The form of the answer.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TextOptions {
    format: Option<Format>,
    /// Only `medium`: the prompt says how much is wanted.
    #[serde(skip_serializing)]
    verbosity: Option<String>,
}

/// The form of a text.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Format {
    Text {},
    JsonObject {},
    JsonSchema {
        name: String,
        #[schema(value_type = Object)]
        schema: Map<String, Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        strict: Option<bool>,
    },
}

/// What an answer repeats of its request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Echo {
    instructions: Option<String>,
    max_output_tokens: Option<usize>,
    temperature: f32,
    top_p: f32,
    tools: Vec<Tool>,
    #[schema(value_type = Value)]
    tool_choice: Value,
    parallel_tool_calls: bool,
    #[schema(value_type = Object)]
    text: Value,
    metadata: HashMap<String, String>,
    user: Option<String>,
}

impl ResponsesRequest {
    /// What the answer repeats.
    pub(crate) fn echo(&self, server: SamplingDefaults) -> Echo {
        let format = self.text.as_ref().and_then(|text| text.format.clone()).unwrap_or(Format::Text {});
        Echo {
            instructions: self.instructions.clone(),
            max_output_tokens: self.max_output_tokens,
            temperature: self.temperature.or(server.temperature).unwrap_or(TEMPERATURE),
            top_p: self.top_p.or(server.top_p).unwrap_or(TOP_P),
            tools: self.tools.clone().unwrap_or_default(),
            tool_choice: self.tool_choice.as_ref().map_or(json!("auto"), |choice| json!(choice)),
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            text: json!({ "format": format }),
            metadata: self.metadata.clone().unwrap_or_default(),
            user: self.user.clone(),
        }
    }

    fn refuse_what_is_not_done(&self) -> Result<(), ApiError> {
        let effort = self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
        let summary = self.reasoning.as_ref().and_then(|reasoning| reasoning.summary.as_deref());
        let verbosity = self.text.as_ref().and_then(|text| text.verbosity.as_deref());
        let hide = self.stream_options.as_ref().is_some_and(|o| o.include_obfuscation == Some(true));
        let not_done = [
            ("stream_options.include_obfuscation", hide, "nothing is added to hide lengths"),
            (
                "reasoning.effort",
                effort.is_some_and(|effort| effort != "none"),
                "this model has no such setting",
            ),
            ("reasoning.summary", summary.is_some(), "this model does not think apart"),
            ("text.verbosity", verbosity.is_some_and(|v| v != "medium"), "this model has no such setting"),
            ("previous_response_id", self.previous_response_id.is_some(), "answers are not stored"),
            ("store", self.store == Some(true), "answers are not stored"),
            (
                "background",
                self.background == Some(true),
                "an answer comes with its request; /v1/batches waits",
            ),
            (
                "truncation",
                self.truncation.as_ref().is_some_and(|t| t != "disabled"),
                "a prompt is never cut",
            ),
            (
                "include",
                self.include.as_ref().is_some_and(|i| !i.is_empty()),
                "there is nothing more to tell",
            ),
            (
                "service_tier",
                self.service_tier.as_ref().is_some_and(|t| !["auto", "default"].contains(&t.as_str())),
                "there is only one",
            ),
        ];
        match not_done.into_iter().find(|(_, is_asked, _)| *is_asked) {
            Some((name, _, why)) => Err(ApiError::unsupported(name, why)),
            None => Ok(()),
        }
    }

    /// The body of a chat that means the same.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn into_chat(self) -> Result<Value, ApiError> {
        self.refuse_what_is_not_done()?;
        let mut messages = Vec::new();
        if let Some(instructions) = self.instructions {
            messages.push(json!({ "role": "system", "content": instructions }));
        }
        self.input.append(&mut messages)?;
        let mut chat = json!({ "messages": messages });
        let fields = [
            ("model", json!(self.model)),
            ("max_completion_tokens", json!(self.max_output_tokens)),
            ("temperature", json!(self.temperature)),
            ("top_p", json!(self.top_p)),
            ("parallel_tool_calls", json!(self.parallel_tool_calls)),
            ("user", json!(self.user.or(self.safety_identifier))),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            chat[name] = value;
        }
        match self.text.and_then(|text| text.format) {
            None | Some(Format::Text {}) => {}
            Some(Format::JsonObject {}) => chat["response_format"] = json!({ "type": "json_object" }),
            Some(Format::JsonSchema { name, schema, strict, .. }) => {
                let named = json!({ "name": name, "schema": schema, "strict": strict });
                chat["response_format"] = json!({ "type": "json_schema", "json_schema": named });
            }
        }
        if let Some(tools) = self.tools.filter(|tools| !tools.is_empty()) {
            chat["tools"] =
                tools.into_iter().enumerate().map(|(i, tool)| tool.into_chat(i)).collect::<Result<_, _>>()?;
            match self.tool_choice {
                None => {}
                Some(ToolChoice::Mode(mode)) => chat["tool_choice"] = json!(mode),
                Some(ToolChoice::Function { kind, name }) => {
                    chat["tool_choice"] = json!({ "type": kind, "function": { "name": name } });
                }
            }
        }
        Ok(chat)
    }
}

impl Tool {
    fn into_chat(self, index: usize) -> Result<Value, ApiError> {
        if self.kind != "function" {
            let name = format!("tools[{index}].type");
            return Err(ApiError::unsupported(name, "only functions can be called"));
        }
        let name = self
            .name
            .ok_or_else(|| ApiError::param(format!("tools[{index}].name"), "this parameter is required"))?;
        let mut function = json!({ "name": name });
        if let Some(description) = self.description {
            function["description"] = description.into();
        }
        if let Some(parameters) = self.parameters {
            function["parameters"] = parameters.into();
        }
        Ok(json!({ "type": "function", "function": function }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: Value) -> Result<Value, ApiError> {
        serde_json::from_value::<ResponsesRequest>(body).unwrap().into_chat()
    }

    #[test]
    fn a_dialogue_with_tools_becomes_a_chat() {
        let found = chat(json!({
            "model": "m", "instructions": "Be brief.", "max_output_tokens": 9, "store": false,
            "tools": [{ "type": "function", "name": "weather", "parameters": { "type": "object" }, "strict": true }],
            "tool_choice": { "type": "function", "name": "weather" },
            "text": { "format": { "type": "json_schema", "name": "a", "schema": { "type": "object" }, "strict": true } },
            "input": [
                { "role": "user", "content": [{ "type": "input_text", "text": "Oslo " }, { "type": "input_text", "text": "now?" }] },
                { "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                  "content": [{ "type": "output_text", "text": "I look.", "annotations": [] }] },
                { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}", "status": "completed" },
                { "type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}" },
                { "type": "function_call_output", "call_id": "c1", "output": "rain" },
                { "type": "reasoning", "id": "rs_1", "summary": [] }
            ]
        }));
        let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "weather", "arguments": "{}" } });
        let expected = json!({
            "model": "m", "max_completion_tokens": 9,
            "response_format": { "type": "json_schema", "json_schema": { "name": "a", "schema": { "type": "object" }, "strict": true } },
            "tools": [{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }],
            "tool_choice": { "type": "function", "function": { "name": "weather" } },
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "Oslo now?" },
                { "role": "assistant", "content": "I look.", "tool_calls": [call("c1"), call("c2")] },
                { "role": "tool", "tool_call_id": "c1", "content": "rain" }
            ]
        });
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (field, value) in [
            ("previous_response_id", json!("resp_1")),
            ("store", json!(true)),
            ("background", json!(true)),
            ("truncation", json!("auto")),
            ("include", json!(["reasoning.encrypted_content"])),
            ("service_tier", json!("flex")),
            ("reasoning.effort", json!("high")),
            ("reasoning.summary", json!("auto")),
            ("text.verbosity", json!("low")),
            ("stream_options.include_obfuscation", json!(true)),
        ] {
            let mut body = json!({ "input": "a" });
            match field.split_once('.') {
                Some((outer, inner)) => body[outer] = json!({ inner: value }),
                None => body[field] = value,
            }
            assert_eq!(chat(body).unwrap_err().param.as_deref(), Some(field));
        }
        let picture = json!({ "input": [{ "role": "user", "content": [{ "type": "input_image", "image_url": "x" }] }] });
        assert_eq!(chat(picture).unwrap_err().param.as_deref(), Some("input[0].content[0].type"));
        let search = json!({ "input": "a", "tools": [{ "type": "web_search" }] });
        assert_eq!(chat(search).unwrap_err().param.as_deref(), Some("tools[0].type"));
    }
}
