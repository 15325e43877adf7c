//! `/v1/files`.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::multipart::{Multipart, MultipartError, MultipartRejection};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use utoipa::{IntoParams, ToSchema};

use super::store::{FileObject, Kept, Store};
use crate::auth::current;
use crate::body;
use crate::error::ApiError;
use crate::limits;
use crate::state::App;

/// Entries of a list at most.
const PAGE: usize = 100;

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// Only files of this purpose.
    purpose: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// Those that come after this one.
    after: Option<String>,
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl<T: Kept> Page<T> {
    /// The part of a list that is asked for.
    ///
    /// # Errors
    /// 400 for a limit that is none.
    pub(crate) fn of(all: Vec<T>, query: &PageQuery) -> Result<Self, ApiError> {
        let limit = query.limit.unwrap_or(PAGE);
        if !(1..=PAGE).contains(&limit) {
            return Err(ApiError::param("limit", format!("{limit} is not in 1..={PAGE}")));
        }
        let mut rest = all.into_iter();
        if let Some(after) = &query.after {
            rest.by_ref().find(|entry| entry.key().0 == after);
        }
        let data: Vec<T> = rest.by_ref().take(limit).collect();
        let id = |entry: Option<&T>| entry.map(|entry| entry.key().0.to_owned());
        let (first_id, last_id) = (id(data.first()), id(data.last()));
        Ok(Self { object: "list", data, first_id, last_id, has_more: rest.next().is_some() })
    }
}

/// A file that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// Where files of whoever asks are kept.
///
/// # Errors
/// 400 when the server keeps none.
pub(crate) fn store(app: &App) -> Result<Store, ApiError> {
    let none = || ApiError::bad_request("This server keeps no files (--data FOLDER)");
    let store = app.store.as_ref().ok_or_else(none)?;
    match current() {
        Some(call) => store.of_owner(&call.identity.owner).map_err(|error| disk(&error, "file")),
        None => Ok(store.clone()),
    }
}

/// What went wrong on the disk; something that is not there is a 404.
pub(crate) fn disk(error: &io::Error, what: &str) -> ApiError {
    match error.kind() {
        io::ErrorKind::NotFound => ApiError::not_found(format!("No such {what}")),
        _ => ApiError::internal(format!("The {what} cannot be kept: {error}")),
    }
}

/// Takes a file in.
pub(crate) async fn create(
    State(app): State<App>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<FileObject>, ApiError> {
    let store = store(&app)?;
    let mut form = form.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let mut file = FileObject::new("", "", 0);
    let path = store.content(&file.id).map_err(|error| disk(&error, "file"))?;
    let taken = tokio::time::timeout(limits::UPLOAD_TIME, take(&mut form, &mut file, &path)).await;
    let taken = taken.unwrap_or_else(|_| Err(ApiError::timeout()));
    let kept = taken.and_then(|()| store.put(&file).map_err(|error| disk(&error, "file")));
    if let Err(error) = kept {
        // What came so far is of no use; that it cannot be removed changes nothing.
        let _ = tokio::fs::remove_file(path).await;
        return Err(error);
    }
    Ok(Json(file))
}

/// Reads the form, the file's content to the disk piece by piece.
async fn take(form: &mut Multipart, file: &mut FileObject, path: &std::path::Path) -> Result<(), ApiError> {
    let broken = |error: MultipartError| match error.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limits::FILE),
        _ => ApiError::bad_request(error.body_text()),
    };
    let mut has_content = false;
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("purpose") => file.purpose = field.text().await.map_err(broken)?,
            Some("file") if !has_content => {
                has_content = true;
                file.filename = field.file_name().unwrap_or("file").chars().take(200).collect();
                let mut out = tokio::fs::File::create(path).await.map_err(|error| disk(&error, "file"))?;
                while let Some(bytes) = field.chunk().await.map_err(broken)? {
                    file.bytes += bytes.len() as u64;
                    out.write_all(&bytes).await.map_err(|error| disk(&error, "file"))?;
                }
                out.sync_all().await.map_err(|error| disk(&error, "file"))?;
            }
            Some(name) => return Err(ApiError::unsupported(name, "this parameter is not known here")),
            None => return Err(ApiError::bad_request("A field of the form has no name")),
        }
    }
    if !has_content {
        return Err(ApiError::param("file", "this parameter is required"));
    }
    if file.purpose != "batch" {
        return Err(ApiError::param("purpose", "it must be batch"));
    }
    Ok(())
}

/// Lists files, the newest first.
pub(crate) async fn list(
    State(app): State<App>,
    body::Query(query): body::Query<PageQuery>,
) -> Result<Json<Page<FileObject>>, ApiError> {
    let mut all: Vec<FileObject> = store(&app)?.list().map_err(|error| disk(&error, "file"))?;
    if let Some(purpose) = &query.purpose {
        all.retain(|file| file.purpose == *purpose);
    }
    Ok(Json(Page::of(all, &query)?))
}

/// Describes a file.
pub(crate) async fn get(
    State(app): State<App>,
    body::Path(id): body::Path,
) -> Result<Json<FileObject>, ApiError> {
    Ok(Json(store(&app)?.get(&id).map_err(|error| disk(&error, "file"))?))
}

/// Deletes a file.
pub(crate) async fn delete(
    State(app): State<App>,
    body::Path(id): body::Path,
) -> Result<Json<Deleted>, ApiError> {
    store(&app)?.delete_file(&id).map_err(|error| disk(&error, "file"))?;
    Ok(Json(Deleted { id, object: "file", deleted: true }))
}

/// Gives a file's content.
pub(crate) async fn content(
    State(app): State<App>,
    body::Path(id): body::Path,
) -> Result<Response, ApiError> {
    let path = store(&app)?.content(&id).map_err(|error| disk(&error, "file"))?;
    let bytes = tokio::fs::read(path).await.map_err(|error| disk(&error, "file"))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from(bytes)).into_response())
}
