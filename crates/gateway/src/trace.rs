//! Traces by option: one span for each request, sent to a collector by OpenTelemetry's protocol (OTLP, protobuf over HTTP).
//!
//! Names of attributes are those of OpenTelemetry's semantic conventions for HTTP and for generative models. What was asked
//! and what was answered is not in them. A collector that is gone holds nobody up: spans wait in a bounded queue, and are
//! dropped when it is full.

use std::fmt;

use async_trait::async_trait;
use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use engine::scheduler::Event;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

/// Where a collector takes traces, below its address.
const PATH: &str = "/v1/traces";

/// Sends a request over the network; may block, and must end by itself.
pub type Post = fn(axum::http::Request<Bytes>) -> Result<axum::http::Response<Bytes>, String>;

/// Where traces go.
#[derive(Clone)]
pub struct TraceConfig {
    /// The collector's address, as `http://localhost:4318`.
    pub collector: String,
    /// What reaches it.
    pub post: Post,
}

impl fmt::Debug for TraceConfig {
    /// An address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceConfig").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Client(Post);

#[async_trait]
impl HttpClient for Client {
    /// Called on the exporter's own thread, which may be held up.
    async fn send_bytes(
        &self,
        request: axum::http::Request<Bytes>,
    ) -> Result<axum::http::Response<Bytes>, HttpError> {
        (self.0)(request).map_err(HttpError::from)
    }
}

/// What makes spans and sends them.
pub(crate) struct Trace {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Trace {
    /// Starts the thread that sends. Which share of requests is traced, and what the service is called, is taken from
    /// OpenTelemetry's own variables of the environment (`OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`).
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn start(config: &TraceConfig) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client(config.post))
            .with_endpoint(format!("{}{PATH}", config.collector.trim_end_matches('/')))
            .build()
            .map_err(|error| error.to_string())?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("edgellm");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Self { tracer: provider.tracer("edgellm"), provider })
    }

    /// The span of a request that begins, under that of its client (`traceparent`).
    pub(crate) fn begin(&self, request: &Request) -> Span {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
        let method = request.method().as_str();
        let span = self
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("http.route", route.to_owned()),
            ])
            .start_with_context(&self.tracer, &parent);
        Span(Context::current_with_span(span))
    }

    /// Sends what is left.
    pub(crate) async fn end(&self) {
        let provider = self.provider.clone();
        // What the collector does not take now is lost with the process.
        let _ = tokio::task::spawn_blocking(move || provider.shutdown()).await;
    }
}

/// The span of a request: it ends when this is dropped, with the last part of the answer.
pub(crate) struct Span(Context);

impl Span {
    /// For what answers the request.
    pub(crate) fn context(&self) -> Context {
        self.0.clone()
    }

    /// The head of the answer is made.
    pub(crate) fn answered(&self, status: StatusCode, id: &str) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        span.set_attribute(KeyValue::new("http.response.header.x-request-id", id.to_owned()));
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

/// What a model does for the request that is being answered.
pub(crate) struct Work {
    context: Context,
    has_begun: bool,
    prompt_tokens: i64,
    completion_tokens: i64,
}

impl Work {
    /// Of the request that is being answered; `None` when it is not traced.
    pub(crate) fn of_this_request(model: &str) -> Option<Self> {
        let context = Context::current();
        if !context.has_active_span() {
            return None;
        }
        context.span().set_attribute(KeyValue::new("gen_ai.request.model", model.to_owned()));
        Some(Self { context, has_begun: false, prompt_tokens: 0, completion_tokens: 0 })
    }

    /// Something happened to one of its jobs.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Token { .. } if !self.has_begun => {
                self.has_begun = true;
                self.context.span().add_event("first token", Vec::new());
            }
            Event::Finished { usage, .. } | Event::Embedded { usage, .. } => {
                self.prompt_tokens += usage.prompt_tokens as i64;
                self.completion_tokens += usage.completion_tokens as i64;
                let span = self.context.span();
                span.set_attribute(KeyValue::new("gen_ai.usage.input_tokens", self.prompt_tokens));
                span.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", self.completion_tokens));
            }
            Event::Token { .. } | Event::Prompt(_) | Event::Failed(_) => {}
        }
    }
}
