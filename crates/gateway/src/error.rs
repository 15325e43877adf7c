//! What a client is told when something cannot be done.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::scheduler::Refused;
use engine::{EngineError, chat_template::TemplateError};
use serde_json::{Value, json};

use crate::limiter::Standing;
use crate::limits;

/// An answer that is an error. By itself it is rendered as OpenAI's; routes of other interfaces render it anew
/// ([`ApiError::of`]).
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// `invalid_request_error` and the like.
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    /// The parameter that is to blame.
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    /// The limit that was reached.
    reached: Option<Box<Reached>>,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy)]
struct Reached {
    /// When it is worth asking again, if it ever is and somebody knows.
    wait: Option<Duration>,
    /// Whether the same request will never be answered.
    is_final: bool,
    standing: Option<Standing>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind, code: None, param: None, message, reached: None }
    }

    /// 400: the request is wrong as a whole.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400 that names the parameter.
    pub(crate) fn param(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("'{param}': {}", message.into());
        Self { param: Some(param), ..Self::bad_request(message) }
    }

    /// 400 for a parameter that this server or model cannot honour.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::param(param, message) }
    }

    /// 400: the prompt does not fit.
    pub(crate) fn context_length(param: &str, tokens: usize, context: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, your messages resulted in {tokens} tokens. \
             Please reduce the length of the messages."
        );
        Self {
            code: Some("context_length_exceeded"),
            param: Some(param.to_owned()),
            ..Self::bad_request(message)
        }
    }

    /// 404: no such model.
    pub(crate) fn no_model(name: &str) -> Self {
        Self {
            code: Some("model_not_found"),
            param: Some("model".to_owned()),
            ..Self::new(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                format!("The model '{name}' does not exist"),
            )
        }
    }

    /// 401: nobody who is known.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
        }
    }

    /// 429: a limit is reached. Without a time it will never be answered, or nobody knows when.
    pub(crate) fn rate_limited(
        code: &'static str,
        message: impl Into<String>,
        wait: Option<Duration>,
        standing: Option<Standing>,
    ) -> Self {
        let is_final = wait.is_none() && standing.is_some();
        let reached = Some(Box::new(Reached { wait, is_final, standing }));
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some(code), reached, ..error }
    }

    /// Whether the same request will never be answered.
    pub(crate) fn is_final(&self) -> bool {
        self.reached.as_ref().is_some_and(|reached| reached.is_final)
    }

    /// How it stands with the limit that was reached.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.reached.as_ref().and_then(|reached| reached.standing)
    }

    /// 403: not for this client.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// 404: no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 405: the path takes another method.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            "This path does not take this method",
        )
    }

    /// 408: the body did not come in time.
    pub(crate) fn timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "The body of the request did not come in time",
        )
    }

    /// 413: the body is too large.
    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("The body of the request is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// 429: the queue is full.
    pub(crate) fn overloaded() -> Self {
        let message = "The server is busy: too many requests are waiting already. Try again later";
        Self {
            code: Some("queue_full"),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
        }
    }

    /// 503: loading or stopping.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message)
    }

    /// 500: our fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The object inside `error` as OpenAI has it.
    pub(crate) fn object(&self) -> Value {
        json!({ "message": self.message, "type": self.kind, "param": self.param, "code": self.code })
    }

    /// The error that a response carries, if it is one.
    pub(crate) fn of(response: &Response) -> Option<Self> {
        response.extensions().get::<Self>().cloned()
    }

    /// The response with this body.
    pub(crate) fn response(self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let is_busy = matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let usual = (is_busy && !self.is_final()).then_some(limits::RETRY_AFTER);
        let wait = self.reached.as_ref().and_then(|reached| reached.wait).or(usual);
        if let Some(wait) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        if self.is_final() {
            // OpenAI's packages ask again after a 429 unless they are told not to.
            let name = HeaderName::from_static("x-should-retry");
            response.headers_mut().insert(name, HeaderValue::from_static("false"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.object() });
        self.response(body)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::QueueFull { .. } => Self::overloaded(),
            Refused::PromptTooLong { tokens, context } => Self::context_length("messages", tokens, context),
            Refused::Invalid(error) => Self::bad_request(error.to_string()),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Request(_) | EngineError::TokenId { .. } | EngineError::Encode(_) => {
                Self::bad_request(error.to_string())
            }
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<TemplateError> for ApiError {
    /// A template that is wrong as such is found when its model is loaded: what fails later is the conversation.
    fn from(error: TemplateError) -> Self {
        Self::param("messages", error.to_string())
    }
}
