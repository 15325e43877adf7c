//! The lines of a batch: requests and results, as OpenAI's JSONL has them.

use std::collections::HashSet;
use std::io::BufRead;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa::ToSchema;

use super::journal::Journal;
use crate::error::ApiError;
use crate::{ids, limits, ws};

/// Where requests may go.
pub(crate) const ENDPOINTS: [&str; 4] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"];

/// A request of a batch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// The client's name of it; no other of the batch has it.
    pub(crate) custom_id: String,
    method: String,
    pub(crate) url: String,
    body: Box<RawValue>,
}

impl Line {
    /// A number that another request hardly has, the same in every build: journals outlive them.
    pub(crate) fn digest(&self) -> u32 {
        let mut digest = crc32fast::Hasher::new();
        for part in [&self.custom_id, &self.url, self.body.get()] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        digest.finalize()
    }
}

/// What came of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) custom_id: String,
    pub(crate) response: Answered,
    pub(crate) error: Option<Value>,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) status_code: u16,
    request_id: String,
    body: Value,
}

impl Outcome {
    /// Whether the request was answered.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.response.status_code)
    }
}

/// A line that cannot be run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Fault {
    pub(crate) code: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
}

/// The requests of a file, all to `endpoint` where one is given.
///
/// # Errors
/// Everything that is wrong in it, the first hundred faults.
pub(crate) fn parse(input: impl BufRead, endpoint: Option<&str>) -> Result<Vec<Line>, Vec<Fault>> {
    const FAULTS: usize = 100;
    let (mut lines, mut faults, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    for (number, text) in (1..).zip(input.split(b'\n')) {
        let mut fault = |code: &str, message: String, param: Option<&str>| {
            let param = param.map(str::to_owned);
            faults.push(Fault { code: code.to_owned(), line: number, message, param });
        };
        let text = match text {
            Ok(text) if text.trim_ascii().is_empty() => continue,
            Ok(text) => text,
            Err(error) => {
                fault("invalid_file", format!("the file cannot be read: {error}"), None);
                break;
            }
        };
        match serde_json::from_slice::<Line>(&text) {
            Err(error) => fault("invalid_json_line", format!("this line is no request: {error}"), None),
            Ok(line) if line.method != "POST" => {
                fault("invalid_method", "it must be POST".to_owned(), Some("method"))
            }
            Ok(line)
                if !ENDPOINTS.contains(&line.url.as_str()) || endpoint.is_some_and(|e| e != line.url) =>
            {
                let wanted = endpoint.map_or_else(|| ENDPOINTS.join(", "), str::to_owned);
                fault("invalid_url", format!("it must be {wanted}"), Some("url"));
            }
            Ok(line) if !names.insert(line.custom_id.clone()) => {
                fault(
                    "duplicate_custom_id",
                    format!("{:?} is there twice", line.custom_id),
                    Some("custom_id"),
                );
            }
            Ok(line) => lines.push(line),
        }
        if lines.len() > limits::BATCH {
            fault("too_many_lines", format!("a batch has at most {} requests", limits::BATCH), None);
            break;
        }
        if faults.len() >= FAULTS {
            break;
        }
    }
    if lines.is_empty() && faults.is_empty() {
        let message = "there is no request in it".to_owned();
        faults.push(Fault { code: "empty_file".to_owned(), line: 1, message, param: None });
    }
    if faults.is_empty() { Ok(lines) } else { Err(faults) }
}

/// A result, with the place of its request and the request's digest.
pub(crate) struct Done {
    pub(crate) place: usize,
    pub(crate) request: u32,
    pub(crate) outcome: Outcome,
}

/// Runs the requests that have no result yet, this many at a time. They come back as they end.
pub(crate) fn run(
    api: Router,
    lines: Vec<Line>,
    journal: &Journal,
    at_once: usize,
) -> impl Stream<Item = Done> + Send + use<> {
    let done: HashSet<usize> = journal.done.iter().map(|(place, _)| *place).collect();
    let open = lines.into_iter().enumerate().filter(move |(place, _)| !done.contains(place));
    let one = move |(place, line): (usize, Line)| {
        let api = api.clone();
        async move { Done { place, request: line.digest(), outcome: answer(&api, line).await } }
    };
    stream::iter(open).map(one).buffer_unordered(at_once.max(1))
}

/// Runs one request. When the server is busy or loading, it waits: a batch has time.
async fn answer(api: &Router, line: Line) -> Outcome {
    let (status, body) = loop {
        let request = match ws::post(&line.url, &HeaderMap::new(), line.body.get().to_owned()) {
            Ok(request) => request,
            Err(error) => break (error.status, json!({ "error": error.object() })),
        };
        let Ok(response) = api.clone().oneshot(request).await;
        let status = response.status();
        let is_final = ApiError::of(&response).is_some_and(|error| error.is_final());
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) && !is_final {
            tokio::time::sleep(limits::RETRY_AFTER).await;
            continue;
        }
        let body = Limited::new(response.into_body(), limits::FILE).collect().await;
        let value = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
        match value {
            Some(value) => break (status, value),
            None => {
                // Events are no value: a batch has nobody to stream to.
                let error = ApiError::unsupported("stream", "not in a batch");
                break (error.status, json!({ "error": error.object() }));
            }
        }
    };
    Outcome {
        id: ids::new("batch_req_"),
        custom_id: line.custom_id,
        response: Answered { status_code: status.as_u16(), request_id: ids::new("req_"), body },
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"}}"#;

    #[test]
    fn good_lines_are_taken_and_blank_ones_left_out() {
        let text = format!("{GOOD}\n\n{}\r\n", GOOD.replace("\"a\"", "\"b\""));
        let lines = parse(text.as_bytes(), Some("/v1/completions")).unwrap();
        assert_eq!(lines.iter().map(|line| line.custom_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn every_fault_has_its_line() {
        for (text, code, line) in [
            (format!("{GOOD}\n{GOOD}"), "duplicate_custom_id", 2),
            (format!("{GOOD}\n{{"), "invalid_json_line", 2),
            (GOOD.replace("POST", "GET"), "invalid_method", 1),
            (GOOD.replace("completions", "batches"), "invalid_url", 1),
            (GOOD.replace("/v1/completions", "/v1/embeddings"), "invalid_url", 1),
            (GOOD.replace("\"body\"", "\"more\""), "invalid_json_line", 1),
            ("\n \n".to_owned(), "empty_file", 1),
        ] {
            let faults = parse(text.as_bytes(), Some("/v1/completions")).unwrap_err();
            assert_eq!((faults[0].code.as_str(), faults[0].line), (code, line), "{text}");
        }
    }
}
