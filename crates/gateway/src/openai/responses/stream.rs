//! The events of `/v1/responses`.

use engine::scheduler::{Reason, Usage};
use serde_json::{Value, json};

use super::answer::{ResponseObject, call_item, status, text_item, text_part};
use crate::ids;
use crate::stream::named;
use crate::translate::Translate;

/// The item that is being written.
enum Open {
    Nothing,
    Text {
        id: String,
        text: String,
    },
    Call {
        id: String,
        /// Its place among the calls.
        place: u64,
        call_id: Value,
        name: Value,
        arguments: String,
    },
}

/// Writes the events of a response.
pub(crate) struct ResponseStream {
    response: ResponseObject,
    open: Open,
    sequence: u64,
}

impl ResponseStream {
    pub(crate) fn new(response: ResponseObject) -> Self {
        Self { response, open: Open::Nothing, sequence: 0 }
    }

    fn send(&mut self, name: &str, mut event: Value, out: &mut Vec<u8>) {
        event["type"] = name.into();
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        named(name, &event, out);
    }

    fn state(&mut self, name: &str, out: &mut Vec<u8>) {
        let response = json!(self.response);
        self.send(name, json!({ "response": response }), out);
    }

    /// The place of the open item, which is not yet among those of the response.
    fn place(&self) -> usize {
        self.response.output.len()
    }

    fn begin_text(&mut self, out: &mut Vec<u8>) {
        self.close("completed", out);
        let (id, place) = (ids::new("msg_"), self.place());
        let item = json!({ "id": id, "type": "message", "status": "in_progress", "role": "assistant", "content": [] });
        self.send("response.output_item.added", json!({ "output_index": place, "item": item }), out);
        let part = json!({ "item_id": id, "output_index": place, "content_index": 0, "part": text_part("") });
        self.send("response.content_part.added", part, out);
        self.open = Open::Text { id, text: String::new() };
    }

    fn text(&mut self, more: &str, out: &mut Vec<u8>) {
        if !matches!(self.open, Open::Text { .. }) {
            self.begin_text(out);
        }
        let place = self.place();
        let Open::Text { id, text } = &mut self.open else { return };
        text.push_str(more);
        let event = json!({ "item_id": id, "output_index": place, "content_index": 0, "delta": more, "logprobs": [] });
        self.send("response.output_text.delta", event, out);
    }

    fn call(&mut self, call: &Value, out: &mut Vec<u8>) {
        let (wanted, function) = (call["index"].as_u64().unwrap_or_default(), &call["function"]);
        if !matches!(&self.open, Open::Call { place, .. } if *place == wanted) {
            self.close("completed", out);
            let (id, call_id, name) = (ids::new("fc_"), call["id"].clone(), function["name"].clone());
            let item = call_item(&id, &call_id, &name, "", "in_progress");
            self.send(
                "response.output_item.added",
                json!({ "output_index": self.place(), "item": item }),
                out,
            );
            self.open = Open::Call { id, place: wanted, call_id, name, arguments: String::new() };
        }
        let place = self.place();
        let more = function["arguments"].as_str().unwrap_or_default();
        let Open::Call { id, arguments, .. } = &mut self.open else { return };
        if more.is_empty() {
            return;
        }
        arguments.push_str(more);
        let event = json!({ "item_id": id, "output_index": place, "delta": more });
        self.send("response.function_call_arguments.delta", event, out);
    }

    /// Ends the open item and puts it among those of the response.
    fn close(&mut self, status: &str, out: &mut Vec<u8>) {
        let place = self.place();
        let item = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Text { id, text } => {
                let here = json!({ "item_id": id, "output_index": place, "content_index": 0 });
                let mut done = here.clone();
                done["text"] = text.clone().into();
                done["logprobs"] = json!([]);
                self.send("response.output_text.done", done, out);
                let mut part = here;
                part["part"] = text_part(&text);
                self.send("response.content_part.done", part, out);
                text_item(&id, &text, status)
            }
            Open::Call { id, call_id, name, arguments, .. } => {
                let done =
                    json!({ "item_id": id, "output_index": place, "name": name, "arguments": arguments });
                self.send("response.function_call_arguments.done", done, out);
                call_item(&id, &call_id, &name, &arguments, status)
            }
        };
        self.send("response.output_item.done", json!({ "output_index": place, "item": item }), out);
        self.response.output.push(item);
    }
}

impl Translate for ResponseStream {
    fn start(&mut self, out: &mut Vec<u8>) {
        self.state("response.created", out);
        self.state("response.in_progress", out);
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<u8>) {
        if let Some(text) = delta["content"].as_str().filter(|text| !text.is_empty()) {
            self.text(text, out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, out);
        }
    }

    fn finish(&mut self, _: &str, reason: Reason, usage: Usage, out: &mut Vec<u8>) {
        if matches!(self.open, Open::Nothing) && self.response.output.is_empty() {
            self.begin_text(out);
        }
        self.close(status(reason), out);
        self.response.finish(reason, &usage);
        self.state(if reason == Reason::Length { "response.incomplete" } else { "response.completed" }, out);
    }

    fn fail(&mut self, error: &Value, out: &mut Vec<u8>) {
        self.response.status = "failed";
        self.response.error = Some(json!({ "code": "server_error", "message": error["message"] }));
        self.state("response.failed", out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SamplingDefaults;
    use crate::openai::responses::request::ResponsesRequest;

    #[test]
    fn a_text_and_a_call_become_two_items() {
        let request: ResponsesRequest = serde_json::from_value(json!({ "input": "a" })).unwrap();
        let echo = request.echo(SamplingDefaults::default());
        let mut stream = ResponseStream::new(ResponseObject::new("m", echo));
        let mut out = Vec::new();
        stream.start(&mut out);
        stream.delta(&json!({ "role": "assistant", "content": null }), &mut out);
        for text in ["I ", "look."] {
            stream.delta(&json!({ "content": text }), &mut out);
        }
        let call = |arguments: &str| json!({ "tool_calls": [{ "index": 0, "id": "c1", "function": { "name": "weather", "arguments": arguments } }] });
        stream.delta(&call(""), &mut out);
        stream.delta(&call("{}"), &mut out);
        stream.finish(
            "tool_calls",
            Reason::End,
            Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() },
            &mut out,
        );
        let events: Vec<Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        let kinds: Vec<&str> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap())
            .collect();
        assert_eq!(
            kinds,
            [
                "created",
                "in_progress",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
                "completed"
            ]
        );
        assert!(events.iter().enumerate().all(|(i, event)| event["sequence_number"] == i));
        let response = &events.last().unwrap()["response"];
        assert_eq!(response["output"][0]["content"][0]["text"], "I look.");
        assert_eq!(response["output"][1]["arguments"], "{}");
        assert_eq!(response["usage"]["total_tokens"], 5);
    }
}
