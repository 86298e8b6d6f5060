//! The pages that people use. Rendered here, without a front-end build; they work without JavaScript,
//! and a small script of ours keeps them current.
//!
//! Nothing on a page runs that is not a file of ours: no inline script, no inline style, no other host.

pub(crate) mod approvals;
mod arguments;
mod drift;
pub(crate) mod login;
mod text;
mod why;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::error::ApiError;
use crate::state::App;

/// A form: a note of 2,000 characters, each of up to 12 bytes when it is encoded, and a token.
const FORM_BYTES_MAX: usize = 32 * 1024;

/// Every page, on one screen.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/approvals") }))
        .route("/login", get(login::form).post(login::submit))
        .route("/logout", post(login::end))
        .route("/session", get(login::in_force))
        .route("/approvals", get(approvals::page))
        .route("/approvals/list", get(approvals::list))
        .route("/approvals/{id}/arguments", get(arguments::page))
        .route("/approvals/{id}/decide", post(approvals::decide))
        .route("/assets/oakallow.svg", get(|| asset("image/svg+xml", include_str!("assets/oakallow.svg"))))
        .route("/assets/oakallow.css", get(|| asset(CSS, include_str!("assets/oakallow.css"))))
        .route("/assets/oakallow.js", get(|| asset(SCRIPT, include_str!("assets/oakallow.js"))))
        .route("/assets/decide.js", get(|| asset(SCRIPT, include_str!("assets/decide.js"))))
        .route("/assets/keys.js", get(|| asset(SCRIPT, include_str!("assets/keys.js"))))
        .route("/assets/session.js", get(|| asset(SCRIPT, include_str!("assets/session.js"))))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
}

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

async fn asset(kind: &'static str, content: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], content)
}

/// What a page may load, and where its forms may go.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const PAGE_HEADERS: [(HeaderName, &str); 2] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    // With `no-referrer` a browser would send `Origin: null` with our own forms.
    (REFERRER_POLICY, "same-origin"),
];

fn show(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, PAGE_HEADERS, Html(html)).into_response(),
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

/// A page that says what went wrong.
#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    title: &'a str,
    detail: &'a str,
    then: Then,
}

/// Where to go from there.
enum Then {
    /// To the approvals.
    Back,
    /// How to get a login link. Other tabs hear it when the session has just `ended`.
    SignIn { ended: bool },
}

/// An error as the client wants it: a page for people, a problem document for scripts.
fn refused(headers: &HeaderMap, error: ApiError) -> Response {
    if wants_json(headers) {
        return error.into_response();
    }
    let message = if error.status() == StatusCode::UNAUTHORIZED {
        let detail = "You are not signed in on this browser, or your session has ended.";
        Message { title: "Sign in", detail, then: Then::SignIn { ended: false } }
    } else {
        Message { title: "That did not work", detail: error.detail(), then: Then::Back }
    };
    show(error.status(), &message)
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.contains("application/json")
}
