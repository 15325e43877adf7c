//! What comes with a request, as types. What is wrong with it is told as every other error.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::ApiError;
use crate::limits;

/// A body in JSON. Nesting is bounded by the parser, size by the router, time here; the error names the field.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = whole(request, state, limits::BODY).await?;
        parse(&bytes).map(Self)
    }
}

/// Parameters of a query.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = extract::Query::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection| ApiError::bad_request(rejection.body_text()))
    }
}

/// The parameter of a path.
pub(crate) struct Path(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| ApiError::bad_request(rejection.body_text()))
    }
}

/// The whole body, if it comes in time and is not too large.
pub(crate) async fn whole<S: Send + Sync>(
    request: Request,
    state: &S,
    limit: usize,
) -> Result<Bytes, ApiError> {
    // Who says that too much will come need not send it.
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    match tokio::time::timeout(limits::BODY_TIME, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::too_large(limit))
        }
        Ok(Err(rejection)) => Err(ApiError::bad_request(rejection.body_text())),
        Err(_) => Err(ApiError::timeout()),
    }
}

/// A body that we made ourselves, as the type that its route takes.
///
/// # Errors
/// As for one that came from outside: what a client asked of one interface may be wrong in another's terms.
pub(crate) fn convert<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, ApiError> {
    parse(value.to_string().as_bytes())
}

/// A part of a body that is an object or absent. The types that serde derives would also take an array of their fields'
/// values, which no description of the API allows.
///
/// # Errors
/// Where it is something else, or not what `T` takes.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    from.deserialize_option(ObjectVisitor(PhantomData))
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<T>, D::Error> {
        from.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

/// A value from its JSON.
///
/// # Errors
/// 400 that names the field.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner();
        if problem.is_syntax() || problem.is_eof() {
            return ApiError::bad_request(format!(
                "We could not parse the JSON body of your request: {problem}"
            ));
        }
        let problem = problem.to_string();
        // serde says: unknown field `x`, expected …
        if let Some(field) = problem.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
            let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
            let name = if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") };
            return ApiError::unsupported(name, "this parameter is not known here");
        }
        if let Some(field) = problem.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            let name =
                if path == "." || path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
            return ApiError::param(name, "this parameter is required");
        }
        ApiError::param(path, problem)
    })?;
    deserializer.end().map_err(|_| ApiError::bad_request("There is more than one JSON value in the body"))?;
    Ok(value)
}
