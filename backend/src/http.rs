//! What happens to every request, whichever route it takes: an id, a time limit, a caught panic, one
//! log line, one measurement, safe headers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use oakallow_policy::id::Kind;

use crate::error::{ApiError, REQUEST_ID};
use crate::state::App;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer.
pub(crate) async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = app.random.id(Kind::Txn, app.now()).replacen("txn_", "req_", 1);
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = known_method(&request);
    let began = Instant::now();
    name_host(&mut request);
    let mut response = REQUEST_ID.scope(id.clone(), guarded(&app, request, next)).await;
    let status = response.status();
    let took = began.elapsed();
    app.metrics.answered(&route, method, status.as_u16(), took);
    tracing::info!(
        request_id = id,
        method,
        route,
        status = status.as_u16(),
        duration_ms = took.as_millis(),
        "request"
    );
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID_HEADER, id);
    }
    for (name, value) in SAFE_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// HTTP/2 says the host in `:authority` (RFC 9113, section 8.3.1), HTTP/1 in `Host`: who asks for it finds it there.
fn name_host(request: &mut Request) {
    let authority = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().entry(HOST).or_insert(authority);
    }
}

/// What a response has unless its handler says otherwise: nothing is cached, sniffed, framed or run.
const SAFE_HEADERS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

async fn guarded(app: &App, request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(app.config.request_timeout, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let what = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            ApiError::internal(&format!("panic: {what}")).into_response()
        }
        Err(_) => ApiError::unavailable("The request took too long.").into_response(),
    }
}

/// A closed list, because it becomes a label.
fn known_method(request: &Request) -> &'static str {
    match request.method().as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

/// No such route.
pub(crate) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_route", "There is no such endpoint; all begin with /v1/.")
}

/// The route exists, not for this method.
pub(crate) async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This endpoint does not take this method; the Allow header names those that it takes.",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;

    use super::*;
    use crate::{Config, Running};

    #[test]
    fn the_host_of_http_2_is_found_where_that_of_http_1_stands() {
        let of = |uri: &str, host: Option<&str>| {
            let mut request = Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap();
            if let Some(host) = host {
                request.headers_mut().insert(HOST, HeaderValue::from_str(host).unwrap());
            }
            name_host(&mut request);
            request.headers().get(HOST).map(|h| h.to_str().unwrap().to_owned())
        };
        assert_eq!(of("http://ours.example/approvals", None).as_deref(), Some("ours.example"));
        assert_eq!(of("http://ours.example/", Some("evil.example")).as_deref(), Some("evil.example"));
        assert_eq!(of("/approvals", None), None);
    }

    /// A backend, and beside it a server with these layers around a route that goes wrong.
    async fn around_route(
        route: axum::routing::MethodRouter<Arc<App>>,
    ) -> (Running, String, tempfile::TempDir) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), dir.path().join("data"));
        config.request_timeout = Duration::from_millis(50);
        let running = crate::start(config).await.unwrap();
        let app = Arc::clone(&running.app);
        let router = Router::new()
            .route("/", route)
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), around))
            .with_state(Arc::clone(&app));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(crate::serve::serve(listener, app, router));
        (running, url, dir)
    }

    async fn problem(url: &str) -> (u16, String, String) {
        let answer = reqwest::get(url).await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let problem: oakallow_policy::wire::Problem = serde_json::from_str(&text).unwrap();
        (status, problem.code, text)
    }

    #[tokio::test]
    async fn a_panic_fails_its_request_and_no_other() {
        async fn broken() -> &'static str {
            panic!("a secret thing broke")
        }
        let (_running, url, _dir) = around_route(get(broken)).await;
        for _ in 0..2 {
            let (status, code, text) = problem(&url).await;
            assert_eq!((status, code.as_str()), (500, "internal"));
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered() {
        let (_running, url, _dir) = around_route(get(std::future::pending::<&'static str>)).await;
        let (status, code, _) = problem(&url).await;
        assert_eq!((status, code.as_str()), (503, "unavailable"));
    }
}
