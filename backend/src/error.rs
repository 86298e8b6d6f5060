//! Errors as the client sees them: RFC 9457 problem documents with a stable `code`.
//!
//! Whose fault it is decides everything: a client's error says what to do; ours is logged once, here,
//! and answered without detail.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use oakallow_policy::wire::{PROBLEM_JSON, Problem};
use serde_json::{Map, Value};

use crate::answer;
use crate::store::StoreError;
use crate::vault::VaultError;

tokio::task_local! {
    /// The id of the request that is being served.
    pub(crate) static REQUEST_ID: String;
}

/// The members that every problem has (RFC 9457 section 3.1, and `code`).
const RESERVED: [&str; 5] = ["type", "title", "status", "code", "detail"];

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
    retry_after_s: Option<u32>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), more: Map::new(), retry_after_s: None }
    }

    /// 400: the request cannot be understood.
    pub(crate) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// 422: the request is understood, one of its values is not acceptable. `pointer` is a JSON pointer
    /// (RFC 6901) into the body.
    pub(crate) fn invalid_value(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail).with("pointer", pointer.into())
    }

    /// 401: no usable credential.
    pub(crate) fn unauthenticated(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// 403: the credential is good, and may not do this.
    pub(crate) fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404, also for what belongs to somebody else.
    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no {what} `{id}` in this org."))
    }

    /// 409.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 503: try again later.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        error.retry_after_s = Some(1);
        error
    }

    /// 500: logged here, answered without detail.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        let request_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
        tracing::error!(request_id, %cause, "internal error");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here; the request had no effect. The log has the request id.",
        )
    }

    /// Adds a member to the problem, beside those that every problem has.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let reserved = RESERVED.contains(&name);
        debug_assert!(!reserved, "every problem has `{name}` already");
        // A key that comes twice makes the whole document unreadable; one member less does not.
        if !reserved {
            self.more.insert(name.to_owned(), value.into());
        }
        self
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// A member that was added.
    pub(crate) fn member(&self, name: &str) -> Option<&Value> {
        self.more.get(name)
    }

    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What went wrong and what to do.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::unavailable("The database is busy; nothing was changed."),
            StoreError::Unavailable(cause) => {
                let request_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
                tracing::error!(request_id, %cause, "the database cannot be used");
                Self::unavailable("The database cannot be used at the moment; nothing was changed.")
            }
            StoreError::Unsure(cause) => {
                let request_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
                tracing::error!(request_id, %cause, "the database went away during a commit");
                Self::unavailable("The database went away; look whether this was done before you ask again.")
            }
            StoreError::Nul => {
                let detail = "A text of this request contains the character U+0000, which is not stored.";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail)
            }
            other => Self::internal(&other),
        }
    }
}

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Database(error) => StoreError::from(error).into(),
            other => Self::internal(&other),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        if let Ok(id) = REQUEST_ID.try_with(Clone::clone) {
            self.more.insert("request_id".to_owned(), id.into());
        }
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            more: self.more,
        };
        let body = answer::text(&problem).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"oakallow\""));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_member_stands_twice_in_a_problem() {
        let made =
            |name| std::panic::catch_unwind(|| ApiError::conflict("settled", "It is.").with(name, "x"));
        for name in RESERVED {
            // While it is developed it panics; in a release the member is left out.
            assert!(made(name).map_or(cfg!(debug_assertions), |error| error.more.is_empty()), "{name}");
        }
        assert_eq!(made("approval_status").unwrap().member("approval_status"), Some(&"x".into()));
        let problem = Problem {
            kind: String::new(),
            title: String::new(),
            status: 0,
            code: String::new(),
            detail: String::new(),
            more: Map::new(),
        };
        let written = serde_json::to_value(problem).unwrap();
        assert!(written.as_object().unwrap().keys().all(|name| RESERVED.contains(&name.as_str())));
        assert_eq!(written.as_object().unwrap().len(), RESERVED.len());
    }
}
