//! Ollama's routes, and EdgeLLM's shorter shapes, on a tiny model.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

mod server;

use serde_json::{Value, json};
use server::Server;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn ollamas_shape_streams_and_the_short_one_does_not() {
    let server = Server::tiny().await;
    let options = json!({ "temperature": 0, "num_predict": 6 });
    let body = json!({ "model": "tiny:latest", "prompt": "Hi", "options": options });
    let stream = server.post("/api/generate", &body).await;
    assert!(stream.head.contains("application/x-ndjson"));
    let lines = lines(&stream.text());
    let text: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &json!(6)));
    for time in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
        assert!(last[time].is_u64(), "{time}");
    }
    let short = json!({ "prompt": "Hi", "max_tokens": 6, "temperature": 0 });
    let whole = server.post("/api/generate", &short).await.json();
    assert_eq!(whole["response"], text);
    let chat =
        json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 6, "temperature": 0 });
    let whole = server.post("/api/chat", &chat).await.json();
    assert_eq!(
        (&whole["message"]["content"], &whole["message"]["role"]),
        (&json!(text), &json!("assistant"))
    );
}

#[tokio::test]
async fn models_are_told_as_ollama_tells_them() {
    let server = Server::tiny().await;
    let tags = server.get("/api/tags").await.json();
    assert_eq!(tags["models"][0]["name"], "tiny");
    assert_eq!(tags["models"][0]["digest"].as_str().unwrap().len(), 64);
    let ps = server.get("/api/ps").await.json();
    assert!(ps["models"][0]["expires_at"].is_string());
    let show = server.post("/api/show", &json!({ "model": "tiny" })).await.json();
    assert_eq!(show["details"]["family"], "qwen2");
    assert_eq!(show["model_info"]["qwen2.context_length"], 2048);
    assert_eq!(server.get("/api/models").await.json()["models"], json!([{ "name": "tiny", "loaded": true }]));
    let unknown = server.post("/api/chat", &json!({ "model": "no", "messages": [] })).await;
    assert_eq!((unknown.status, unknown.json()), (404, json!({ "error": "model 'no' not found" })));
}

#[tokio::test]
async fn embeddings_of_all_interfaces_agree() {
    let server = Server::tiny().await;
    let new = server.post("/api/embed", &json!({ "input": ["ab", "c"] })).await.json();
    let old = server.post("/api/embeddings", &json!({ "prompt": "ab" })).await.json();
    let openai = server.post("/v1/embeddings", &json!({ "input": "ab" })).await.json();
    assert_eq!(new["embeddings"].as_array().unwrap().len(), 2);
    for other in [&old["embedding"], &openai["data"][0]["embedding"]] {
        let pairs = new["embeddings"][0].as_array().unwrap().iter().zip(other.as_array().unwrap());
        assert!(pairs.into_iter().all(|(a, b)| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5));
    }
}

#[tokio::test]
async fn a_model_is_let_go_and_loaded_again() {
    let server = Server::tiny().await;
    let unload = server.post("/api/generate", &json!({ "model": "tiny", "keep_alive": 0 })).await.json();
    assert_eq!((&unload["done_reason"], &unload["response"]), (&json!("unload"), &json!("")));
    while server.get("/api/ps").await.json()["models"] != json!([]) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(server.get("/ready").await.status, 200);
    let load = server.post("/api/generate", &json!({ "model": "tiny", "keep_alive": "5m" })).await.json();
    assert_eq!(load["done_reason"], "load");
    assert_eq!(server.get("/api/ps").await.json()["models"][0]["name"], "tiny");
}

#[tokio::test]
async fn options_that_cannot_be_honoured_are_named() {
    let server = Server::tiny().await;
    for (body, name) in [
        (json!({ "prompt": "a", "options": { "mirostat": 1 } }), "options.mirostat"),
        (json!({ "prompt": "a", "options": { "num_ctx": 100_000 } }), "options.num_ctx"),
        (json!({ "prompt": "a", "options": { "temperature": -1 } }), "temperature"),
        (json!({ "prompt": "a", "think": true }), "think"),
        (json!({ "prompt": "a", "images": ["x"] }), "images"),
        (json!({ "prompt": "a", "format": "xml" }), "format"),
        (json!({ "prompt": "a", "keep_alive": "soon" }), "keep_alive"),
    ] {
        let answer = server.post("/api/generate", &body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["error"].as_str().unwrap().contains(name), "{body}: {}", answer.text());
    }
}

#[tokio::test]
async fn log_probabilities_are_those_of_openais_interface() {
    let server = Server::tiny().await;
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let asked = json!({ "messages": messages, "logprobs": true, "top_logprobs": 3 });
    let with = |more: Value| {
        let mut body = asked.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let openai = with(json!({ "temperature": 0, "max_tokens": 6 }));
    let openai = server.post("/v1/chat/completions", &openai).await.json();
    let expected = openai["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!((expected.len(), expected[0]["top_logprobs"].as_array().unwrap().len()), (6, 3));
    let options = json!({ "temperature": 0, "num_predict": 6, "repeat_penalty": 1 });
    let whole = with(json!({ "options": options, "stream": false }));
    let whole = server.post("/api/chat", &whole).await.json();
    assert_eq!(whole["logprobs"].as_array().unwrap(), expected);
    // In a stream each line has those of its tokens.
    let stream = server.post("/api/chat", &with(json!({ "options": options }))).await;
    let lines = lines(&stream.text());
    let told: Vec<&Value> = lines.iter().filter_map(|line| line["logprobs"].as_array()).flatten().collect();
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
    for line in lines.iter().filter(|line| line["message"]["content"] != "") {
        let tokens =
            line["logprobs"].as_array().unwrap().iter().map(|token| token["token"].as_str().unwrap());
        assert!(
            tokens.collect::<String>().contains(line["message"]["content"].as_str().unwrap().trim()),
            "{line}"
        );
    }
    let plain = json!({ "prompt": "Hi", "options": options, "stream": false });
    assert!(server.post("/api/generate", &plain).await.json()["logprobs"].is_null());
    let alone = json!({ "prompt": "Hi", "options": options, "logprobs": true, "stream": false });
    let alone = server.post("/api/generate", &alone).await.json();
    assert_eq!(alone["logprobs"].as_array().unwrap().len(), 6);
    for (wrong, name) in [
        (json!({ "prompt": "a", "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "prompt": "a", "top_logprobs": 2 }), "top_logprobs"),
    ] {
        let answer = server.post("/api/generate", &wrong).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"].as_str().unwrap().contains(name));
    }
}

#[tokio::test]
async fn num_ctx_bounds_prompt_and_answer() {
    let server = Server::tiny().await;
    let body = |context: usize| {
        let options = json!({ "temperature": 0, "num_ctx": context, "repeat_penalty": 1 });
        json!({ "prompt": "abcabc", "raw": true, "stream": false, "options": options })
    };
    let whole = server.post("/api/generate", &body(20)).await.json();
    let tokens = |name: &str| whole[name].as_u64().unwrap();
    assert_eq!(
        (tokens("prompt_eval_count") + tokens("eval_count"), &whole["done_reason"]),
        (21, &json!("length"))
    );
    let small = server.post("/api/generate", &body(1)).await;
    assert_eq!(small.status, 400, "{}", small.text());
}
