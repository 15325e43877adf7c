//! OpenAI's routes on a tiny model.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod server;

use gateway::{Config, SamplingDefaults};
use serde_json::{Value, json};
use server::{Server, tiny_source};

fn chat(more: Value) -> Value {
    let mut body =
        json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 12, "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_stream_gives_what_the_whole_gives() {
    let server = Server::tiny().await;
    let whole = server
        .post("/v1/chat/completions", &chat(json!({ "n": 3, "temperature": 1, "seed": 5 })))
        .await
        .json();
    let more = json!({ "n": 3, "temperature": 1, "seed": 5, "stream": true, "stream_options": { "include_usage": true } });
    let stream = server.post("/v1/chat/completions", &chat(more)).await;
    assert!(stream.head.contains("text/event-stream"), "{}", stream.head);
    let events = stream.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let mut texts = vec![String::new(); 3];
    let mut reasons = vec![Value::Null; 3];
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let index = choice["index"].as_u64().unwrap() as usize;
        texts[index] += choice["delta"]["content"].as_str().unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            reasons[index] = choice["finish_reason"].clone();
        }
    }
    for (i, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["message"]["content"], texts[i]);
        assert_eq!(choice["finish_reason"], reasons[i]);
    }
    let usage = |usage: &Value| (usage["prompt_tokens"].clone(), usage["completion_tokens"].clone());
    assert_eq!(usage(&chunks.last().unwrap()["usage"]), usage(&whole["usage"]));
    assert!(texts[0] != texts[1] || texts[1] != texts[2], "each choice has a seed of its own");
}

#[tokio::test]
async fn an_echo_with_logprobs_covers_prompt_and_answer() {
    let server = Server::tiny().await;
    let body = json!({ "prompt": "abc", "max_tokens": 4, "temperature": 0, "echo": true, "logprobs": 2 });
    let choice = server.post("/v1/completions", &body).await.json()["choices"][0].clone();
    let logprobs = &choice["logprobs"];
    let text: String =
        logprobs["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert!(text.contains("abc"));
    assert!(logprobs["token_logprobs"][0].is_null());
    // Greedy: every chosen token is the likeliest.
    let n = logprobs["tokens"].as_array().unwrap().len();
    for i in n - 4..n {
        let best = logprobs["top_logprobs"][i].as_object().unwrap().values();
        let best = best.map(|p| p.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
        assert!((logprobs["token_logprobs"][i].as_f64().unwrap() - best).abs() < 1e-6);
    }
}

#[tokio::test]
async fn json_is_json() {
    let server = Server::tiny().await;
    let schema = json!({
        "type": "object",
        "properties": { "ok": { "type": "boolean" }, "kind": { "enum": ["a", "b"] } },
        "required": ["ok", "kind"], "additionalProperties": false,
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    for seed in 0..5 {
        let more = json!({ "response_format": format, "max_tokens": 100, "temperature": 1, "seed": seed });
        let answer = server.post("/v1/chat/completions", &chat(more)).await.json();
        assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(value["ok"].is_boolean() && ["a", "b"].contains(&value["kind"].as_str().unwrap()), "{text}");
    }
}

#[tokio::test]
async fn a_tool_that_is_named_is_called() {
    let server = Server::tiny().await;
    let parameters = json!({
        "type": "object", "properties": { "x": { "enum": [1, 2] } }, "required": ["x"], "additionalProperties": false,
    });
    let tools = json!([{ "type": "function", "function": { "name": "add", "parameters": parameters } }]);
    let choice = json!({ "type": "function", "function": { "name": "add" } });
    let more = json!({ "tools": tools, "tool_choice": choice, "max_tokens": 100 });
    let answer = server.post("/v1/chat/completions", &chat(more.clone())).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "add");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!([json!({ "x": 1 }), json!({ "x": 2 })].contains(&arguments));
    // The same as a stream: the name first, then the arguments.
    let mut more = more;
    more["stream"] = true.into();
    let events = server.post("/v1/chat/completions", &chat(more)).await.events();
    let chunks: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
    let calls: Vec<&Value> =
        chunks.iter().map(|c| &c["choices"][0]["delta"]["tool_calls"][0]).filter(|c| !c.is_null()).collect();
    assert_eq!(calls[0]["function"]["name"], "add");
    let streamed: String =
        calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap_or_default()).collect();
    assert_eq!(serde_json::from_str::<Value>(&streamed).unwrap(), arguments);
}

#[tokio::test]
async fn embeddings_have_length_one_and_come_as_numbers_or_base64() {
    let server = Server::tiny().await;
    let float = server.post("/v1/embeddings", &json!({ "input": ["a", "bb"] })).await.json();
    let vector = |i: usize| -> Vec<f64> {
        float["data"][i]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    for i in 0..2 {
        let length: f64 = vector(i).iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
    assert_ne!(vector(0), vector(1));
    let text =
        server.post("/v1/embeddings", &json!({ "input": "a", "encoding_format": "base64" })).await.json();
    let text = text["data"][0]["embedding"].as_str().unwrap().to_owned();
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    for (bytes, x) in bytes.chunks_exact(4).zip(vector(0)) {
        assert!((f64::from(f32::from_le_bytes(bytes.try_into().unwrap())) - x).abs() < 1e-6);
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_a_400_that_names_the_parameter() {
    let server = Server::tiny().await;
    let image =
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }]);
    let part = json!([{ "role": "user", "content": [{ "type": "text", "text": "x", "weight": 2 }] }]);
    let tool = json!([{ "type": "function", "function": { "name": "a b", "parameters": {} } }]);
    let cases = [
        (json!({ "temperature": 2.5 }), "temperature"),
        (json!({ "temperature": "warm" }), "temperature"),
        (json!({ "top_p": -0.1 }), "top_p"),
        (json!({ "n": 0 }), "n"),
        (json!({ "n": 17 }), "n"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": -1 }), "max_tokens"),
        (json!({ "stop": vec!["a"; 17] }), "stop"),
        (json!({ "stop": "" }), "stop"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "logit_bias": { "99999": 1 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": 101 } }), "logit_bias"),
        (json!({ "presence_penalty": 3 }), "presence_penalty"),
        (json!({ "frequency_penalty": -3 }), "frequency_penalty"),
        (json!({ "store": true }), "store"),
        (json!({ "service_tier": "flex" }), "service_tier"),
        (json!({ "modalities": ["audio"] }), "modalities"),
        (json!({ "stream_options": {} }), "stream_options"),
        (json!({ "audio": {} }), "audio"),
        (json!({ "tools": tool }), "tools[0].function.name"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (
            json!({ "response_format": { "type": "json_object", "schema": { "type": "x" } } }),
            "response_format.schema",
        ),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "poet", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": image }), "messages[0].content[0].type"),
        (json!({ "messages": part }), "messages[0].content[0].weight"),
        (
            json!({ "stream": true, "stream_options": { "include_obfuscation": true } }),
            "stream_options.include_obfuscation",
        ),
    ];
    for (more, param) in cases {
        let answer = server.post("/v1/chat/completions", &chat(more.clone())).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], param, "{more}: {}", answer.text());
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    let missing = server.post("/v1/chat/completions", &json!({})).await.json();
    assert_eq!(missing["error"]["param"], "messages");
    for (more, param) in [
        (json!({ "suffix": "x" }), "suffix"),
        (json!({ "best_of": 1, "n": 2 }), "best_of"),
        (json!({ "prompt": [1, 99999] }), "prompt"),
        (json!({ "logprobs": 21 }), "logprobs"),
    ] {
        let mut body = json!({ "prompt": "a" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.post("/v1/completions", &body).await;
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some(param)), "{more}");
    }
}

#[tokio::test]
async fn a_prompt_that_is_too_long_and_an_unknown_model_are_told_by_their_codes() {
    let server = Server::tiny().await;
    let long = server.post("/v1/completions", &json!({ "prompt": "a ".repeat(3000) })).await;
    assert_eq!((long.status, long.json()["error"]["code"].as_str()), (400, Some("context_length_exceeded")));
    let unknown = server.post("/v1/chat/completions", &chat(json!({ "model": "gpt-9" }))).await;
    assert_eq!((unknown.status, unknown.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    let nowhere = server.get("/v2/nothing").await;
    assert_eq!(
        (nowhere.status, nowhere.json()["error"]["type"].as_str()),
        (404, Some("invalid_request_error"))
    );
    assert_eq!(server.get("/v1/chat/completions").await.status, 405);
}

#[tokio::test]
async fn the_server_says_what_a_request_does_not() {
    let sampling =
        SamplingDefaults { temperature: Some(0.0), max_tokens: Some(5), seed: Some(1), ..Default::default() };
    let server = Server::start(Config { models: vec![tiny_source()], sampling, ..Config::default() }).await;
    let (mut texts, prompt) = (Vec::new(), "abc");
    // Greedy, whatever the seed; five tokens unless the request says otherwise.
    for seed in 1..4 {
        let answer = server.post("/v1/completions", &json!({ "prompt": prompt, "seed": seed })).await.json();
        assert_eq!(answer["usage"]["completion_tokens"], 5);
        texts.push(answer["choices"][0]["text"].as_str().unwrap().to_owned());
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let answer = server
        .post("/v1/chat/completions", &chat(json!({ "max_tokens": null, "ignore_eos": true })))
        .await
        .json();
    assert_eq!(answer["usage"]["completion_tokens"], 5);
    let longer = json!({ "max_tokens": 7, "ignore_eos": true });
    assert_eq!(
        server.post("/v1/chat/completions", &chat(longer)).await.json()["usage"]["completion_tokens"],
        7
    );
    let ollama = json!({ "prompt": prompt, "raw": true, "stream": false });
    assert_eq!(server.post("/api/generate", &ollama).await.json()["eval_count"], 5);
    let responses = server.post("/v1/responses", &json!({ "input": "a" })).await.json();
    assert_eq!((&responses["temperature"], &responses["usage"]["output_tokens"]), (&json!(0.0), &json!(5)));
    // The server's seed makes draws repeat; a request's own seed is another.
    let draw = async |more: Value| {
        let mut body = json!({ "prompt": prompt, "temperature": 2, "max_tokens": 20, "ignore_eos": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/completions", &body).await.json()["choices"][0]["text"].clone()
    };
    assert_eq!(draw(json!({})).await, draw(json!({})).await);
    assert_ne!(draw(json!({})).await, draw(json!({ "seed": 2 })).await);
}

#[tokio::test]
async fn an_array_does_not_pass_for_an_object() {
    let server = Server::tiny().await;
    let text = json!({ "input": "Hi", "max_output_tokens": 2, "text": [null, null] });
    let refusals = [
        (server.post("/v1/responses", &text).await, "text"),
        (
            server.post("/v1/chat/completions", &chat(json!({ "stream_options": [true, null] }))).await,
            "stream_options",
        ),
    ];
    for (refusal, param) in refusals {
        assert!(refusal.head.starts_with("http/1.1 400"), "{}", refusal.head);
        assert_eq!(refusal.json()["error"]["param"], param);
    }
    let none = json!({ "input": "Hi", "max_output_tokens": 2, "text": null, "reasoning": {} });
    assert!(server.post("/v1/responses", &none).await.head.starts_with("http/1.1 200"));
}
