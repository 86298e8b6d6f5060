//! Reading requests: bodies, queries and path segments, each refused with a problem that points at the
//! place.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::StatusCode;
use http::request::Parts;
use oakallow_policy::document;
use oakallow_policy::id::Name;
use oakallow_policy::strict_json;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ApiError;
use crate::state::App;

/// A JSON body, whatever its Content-Type says, read strictly. Its raw bytes stay reachable as what was
/// parsed, and unknown fields are refused by the types themselves.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        read(request, app.config.body_bytes_max).await.map(Self)
    }
}

/// A [`Body`] that comes before any credential has been shown: a few names and a key.
pub(crate) struct FirstBody<T>(pub(crate) T);

/// Anybody can make us hold this much.
const FIRST_BODY_BYTES_MAX: usize = 16 * 1024;

impl<T: DeserializeOwned> FromRequest<Arc<App>> for FirstBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, ApiError> {
        read(request, FIRST_BODY_BYTES_MAX).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T, ApiError> {
    let bytes = axum::body::to_bytes(request.into_body(), limit).await.map_err(|e| body_error(&e, limit))?;
    from_json(&bytes)
}

fn body_error(error: &axum::Error, limit: usize) -> ApiError {
    let too_large =
        std::error::Error::source(error).is_some_and(|e| e.is::<http_body_util::LengthLimitError>());
    if too_large {
        let detail = format!("The body is larger than {limit} bytes.");
        return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail);
    }
    ApiError::invalid_request("The body could not be read to its end.")
}

/// Reads strict JSON into a checked type.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::invalid_request("The body is empty; this endpoint takes a JSON object."));
    }
    let value = strict_json::parse_envelope(bytes)
        .map_err(|e| ApiError::invalid_request(format!("The body: {e}.")))?;
    checked(value)
}

/// Reads a JSON value into a checked type; a refusal points at the place.
pub(crate) fn checked<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let message = e.inner().to_string();
        let pointer = pointer(e.path());
        let hint = document::hint(&message).map(|hint| format!(" ({hint})")).unwrap_or_default();
        ApiError::invalid_value(pointer, format!("{message}{hint}."))
    })
}

/// A JSON pointer (RFC 6901) to where reading stopped.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1")));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// 422 unless the parameters of a call are nested no deeper than a call may be; what is around them may be.
pub(crate) fn flat_enough(pointer: &str, parameters: &Value) -> Result<(), ApiError> {
    if strict_json::is_too_deep(parameters) {
        let detail = format!("Nested deeper than {}.", strict_json::CALL_DEPTH_MAX);
        return Err(ApiError::invalid_value(pointer, detail));
    }
    Ok(())
}

/// A text that is kept and shown to people: as short and as visible as a name.
pub(crate) fn tame(pointer: &str, text: &str) -> Result<String, ApiError> {
    match Name::new(text) {
        Ok(name) => Ok(name.to_string()),
        Err(e) => Err(ApiError::invalid_value(pointer, format!("{e}."))),
    }
}

/// A query string; unknown parameters are refused by the types themselves.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, app)
            .await
            .map(|Query(params)| Self(params))
            .map_err(|e| ApiError::invalid_request(format!("{}.", e.body_text())))
    }
}

/// The one parameter of a path, decoded.
pub(crate) struct Segment(pub(crate) String);

impl FromRequestParts<Arc<App>> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        Path::<String>::from_request_parts(parts, app)
            .await
            .map(|Path(segment)| Self(segment))
            .map_err(|e| ApiError::invalid_request(format!("{}.", e.body_text())))
    }
}

impl Segment {
    /// The segment as a name; what cannot be a name names nothing.
    pub(crate) fn name(&self, what: &str) -> Result<Name, ApiError> {
        Name::new(&self.0).map_err(|_| ApiError::not_found(what, &self.0))
    }
}

/// Which part of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageParams {
    limit: Option<u32>,
    cursor: Option<String>,
}

const PAGE: u32 = 50;
const PAGE_MAX: u32 = 500;

impl PageParams {
    /// Rows asked for.
    pub(crate) fn limit(&self) -> u32 {
        page_limit(self.limit)
    }

    /// One more row than asked for: it tells whether there is a next page.
    pub(crate) fn fetch(&self) -> u32 {
        self.limit() + 1
    }

    /// The key after which the page begins; empty for the first.
    pub(crate) fn after(&self) -> Result<String, ApiError> {
        decode_cursor(self.cursor.as_deref())
    }
}

/// The number of rows of a page.
pub(crate) fn page_limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(PAGE).clamp(1, PAGE_MAX)
}

/// The key in a cursor, which is opaque to clients; empty without one.
pub(crate) fn decode_cursor(cursor: Option<&str>) -> Result<String, ApiError> {
    let Some(cursor) = cursor else { return Ok(String::new()) };
    oakallow_policy::canonical::unbase64url(cursor)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(foreign_cursor)
}

/// 400: nobody gave this cursor out.
pub(crate) fn foreign_cursor() -> ApiError {
    ApiError::invalid_request("The cursor is not one of ours: use next_cursor as it came.")
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// From rows of which one more than `limit` was fetched; `key` is what the next page begins after.
    pub(crate) fn new(mut rows: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self::of(rows, more, key)
    }

    /// From the rows of the page itself, after which there are more or not.
    pub(crate) fn of(rows: Vec<T>, more: bool, key: impl Fn(&T) -> String) -> Self {
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .map(|last| oakallow_policy::canonical::base64url(key(last).as_bytes()));
        Self { data: rows, next_cursor }
    }

    /// The same page with each row shown differently.
    pub(crate) fn map<U>(self, show: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(show).collect(), next_cursor: self.next_cursor }
    }
}
