//! Answers: JSON that ends with a line break, so that `curl` leaves the prompt on a line of its own.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::error::ApiError;

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match text(&self.0) {
            Ok(body) => {
                ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
            }
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

/// The JSON text of a body.
pub(crate) fn text<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

/// 201 with what was created.
pub(crate) type Created<T> = (StatusCode, Json<T>);

/// See [`Created`].
pub(crate) const fn created<T>(value: T) -> Created<T> {
    (StatusCode::CREATED, Json(value))
}
