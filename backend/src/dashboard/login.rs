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

use super::{Message, Then, refused, show, wants_json};
use crate::error::ApiError;
use crate::keys;
use crate::session::{self, Session};
use crate::state::App;
use crate::store::{StoreError, sessions};

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
    session: Result<Session, ApiError>,
    login: Result<Query<Login>, QueryRejection>,
) -> Response {
    if let Err(error) = session::check_host(&headers, &app) {
        return refused(&headers, error);
    }
    match login {
        Ok(Query(Login { token })) => match was_used(&app, &token).await {
            Ok(false) => show(StatusCode::OK, &LoginPage { token: &token }),
            Ok(true) => unusable(&headers, true, session.is_ok()),
            Err(error) => refused(&headers, error.into()),
        },
        Err(_) => unusable(&headers, false, session.is_ok()),
    }
}

/// `POST /login`: uses the link up and begins a session.
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    session: Result<Session, ApiError>,
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
        Ok(None) => match was_used(&app, &login.token).await {
            Ok(used) => unusable(&headers, used, session.is_ok()),
            Err(error) => refused(&headers, error.into()),
        },
        Err(error) => refused(&headers, error.into()),
    }
}

async fn was_used(app: &App, token: &str) -> Result<bool, StoreError> {
    sessions::link_was_used(&mut app.db.read_across().await?, &keys::hash(token)).await
}

/// A page about a link that signs nobody in. Whoever is signed in already has somewhere to go.
fn unusable(headers: &HeaderMap, used: bool, signed_in: bool) -> Response {
    let (title, detail) = if used {
        ("This link was used already", "A login link signs in once.")
    } else {
        ("This link does not work", "It has expired, or a part of it is missing.")
    };
    if wants_json(headers) {
        return ApiError::unauthenticated("login_link", format!("{title}. {detail}")).into_response();
    }
    let then = if signed_in { Then::Back } else { Then::SignIn { ended: false } };
    show(StatusCode::UNAUTHORIZED, &Message { title, detail, then })
}

/// `GET /session`: 204 while it is in force, so that a page can notice its end.
pub(crate) async fn in_force(_: Session) -> StatusCode {
    StatusCode::NO_CONTENT
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
            let then = Then::SignIn { ended: true };
            let detail = "To sign in again you need a new login link.";
            let page = Message { title: "You are signed out", detail, then };
            ([(SET_COOKIE, cookie)], show(StatusCode::OK, &page)).into_response()
        }
        Err(error) => refused(&headers, error),
    }
}
