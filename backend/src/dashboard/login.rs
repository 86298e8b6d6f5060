//! Signing in with a one-time link, and signing out.
//!
//! Opening the link shows a button, and the button uses it up: mail scanners and link previews, which
//! open links but press nothing, do not.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::{refused, show};
use crate::error::ApiError;
use crate::session::{self, Session};
use crate::state::App;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    token: &'a str,
}

#[derive(Deserialize)]
pub(crate) struct Login {
    token: String,
}

/// `GET /login?token=…`: the button.
pub(crate) async fn form(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    login: Result<Query<Login>, QueryRejection>,
) -> Response {
    if let Err(error) = session::check_host(&headers, &app) {
        return refused(&headers, error);
    }
    match login {
        Ok(Query(Login { token })) => show(StatusCode::OK, &LoginPage { token: &token }),
        Err(_) => refused(&headers, unusable()),
    }
}

/// `POST /login`: uses the link up and begins a session.
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Form(login): Form<Login>,
) -> Response {
    let checked = session::check_host(&headers, &app).and_then(|()| session::check_origin(&headers, &app));
    if let Err(error) = checked {
        return refused(&headers, error);
    }
    match session::sign_in(&app, &login.token).await {
        Ok(Some(cookie)) => {
            ([(SET_COOKIE, cookie.expose().to_owned())], Redirect::to("/approvals")).into_response()
        }
        Ok(None) => refused(&headers, unusable()),
        Err(error) => refused(&headers, error.into()),
    }
}

fn unusable() -> ApiError {
    ApiError::unauthenticated(
        "login_link",
        "This login link was used already, or it has expired. Ask for a new one.",
    )
}

#[derive(Deserialize)]
pub(crate) struct Logout {
    csrf: String,
}

/// `POST /logout`
pub(crate) async fn end(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    session: Result<Session, ApiError>,
    Form(logout): Form<Logout>,
) -> Response {
    let ended = async {
        let session = session?;
        session.check_csrf(&logout.csrf)?;
        Ok::<_, ApiError>(session::sign_out(&app, &session).await?)
    };
    match ended.await {
        Ok(cookie) => {
            let detail = "You are signed out. Open a login link to sign in again.";
            let page = super::Message { title: "Signed out", detail };
            ([(SET_COOKIE, cookie)], show(StatusCode::OK, &page)).into_response()
        }
        Err(error) => refused(&headers, error),
    }
}
