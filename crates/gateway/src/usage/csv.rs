//! Records as CSV (RFC 4180), a page of the database at a time.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::storage::{Database, StorageError};

/// Records of a page.
const PAGE: i64 = 1000;
const HEAD: &str =
    "id,time_ms,key,owner,model,endpoint,status,prompt_tokens,cached_tokens,completion_tokens,latency_ms\r\n";

struct State {
    database: Database,
    owner: String,
    /// The last record that was written: its time and name.
    after: (i64, String),
    done: bool,
}

/// All records of an owner, of everybody for an empty name, since a time in milliseconds. The first page is read before the
/// answer begins.
///
/// # Errors
/// The database's.
pub(super) async fn respond(database: Database, owner: String, since: i64) -> Result<Response, StorageError> {
    let mut state = State { database, owner, after: (since - 1, String::new()), done: false };
    let mut first = HEAD.to_owned();
    page(&mut state, &mut first).await?;
    let rest = stream::unfold((Some(first), state), |(first, mut state)| async {
        if let Some(first) = first {
            return Some((Ok(Bytes::from(first)), (None, state)));
        }
        if state.done {
            return None;
        }
        let mut text = String::new();
        // An answer that has begun can only be cut off.
        let result = page(&mut state, &mut text).await.map_err(io::Error::other);
        state.done |= result.is_err();
        Some((result.map(|()| Bytes::from(text)), (None, state)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"usage.csv\"")),
    ];
    Ok((headers, Body::from_stream(rest)).into_response())
}

/// Appends the next page.
async fn page(state: &mut State, text: &mut String) -> Result<(), StorageError> {
    let sql = "SELECT at, id, subject, owner, model, endpoint, status, prompt_tokens, cached_tokens, \
               completion_tokens, micros FROM usage_records WHERE (at, id) > ($1, $2) AND ($3 = '' OR owner = $3) \
               ORDER BY at, id LIMIT $4";
    let query = sqlx::query(sql).bind(state.after.0).bind(&state.after.1).bind(&state.owner).bind(PAGE);
    let rows = query.fetch_all(state.database.pool()).await?;
    for row in &rows {
        line(row, text)?;
    }
    state.done = (rows.len() as i64) < PAGE;
    if let Some(last) = rows.last() {
        state.after = (last.try_get(0)?, last.try_get(1)?);
    }
    Ok(())
}

fn line(row: &AnyRow, text: &mut String) -> Result<(), StorageError> {
    let (at, id): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
    text.push_str(&format!("{id},{at}"));
    for column in 2..6 {
        text.push(',');
        field(&row.try_get::<String, _>(column)?, text);
    }
    for column in 6..10 {
        text.push_str(&format!(",{}", row.try_get::<i64, _>(column)?));
    }
    text.push_str(&format!(",{:.3}\r\n", row.try_get::<i64, _>(10)? as f64 / 1000.0));
    Ok(())
}

/// A text that came from outside. A spreadsheet would take some beginnings for a formula.
fn field(value: &str, text: &mut String) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_:. -".contains(&byte);
    if value.bytes().all(is_plain) && !value.starts_with('-') {
        return text.push_str(value);
    }
    text.push('"');
    if value.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        text.push('\'');
    }
    text.push_str(&value.replace('"', "\"\""));
    text.push('"');
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_quoted_and_no_formula() {
        for (value, wanted) in [
            ("/v1/chat", "/v1/chat"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"\n", "\"say \"\"hi\"\"\n\""),
            ("=1+1", "\"'=1+1\""),
            ("-1", "\"'-1\""),
        ] {
            let mut text = String::new();
            super::field(value, &mut text);
            assert_eq!(text, wanted);
        }
    }
}
