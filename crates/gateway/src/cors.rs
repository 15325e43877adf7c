//! Which web pages of other origins may ask.

use axum::http::{HeaderName, HeaderValue, header};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};

/// The layer for these origins; `*` among them for all.
pub(crate) fn layer(origins: &[String]) -> CorsLayer {
    let exposed = [header::RETRY_AFTER, HeaderName::from_static("x-request-id")];
    // Named and not `*`, which means all headers but the one with the key.
    let (methods, headers) = (AllowMethods::mirror_request(), AllowHeaders::mirror_request());
    let layer = CorsLayer::new().allow_methods(methods).allow_headers(headers).expose_headers(exposed);
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(Any);
    }
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    layer.allow_origin(AllowOrigin::list(origins))
}
