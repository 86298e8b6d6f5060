//! Stands between Envoy's HTTP external authorization and Cerbos: Envoy sends the call as it came, Cerbos wants a
//! question of its own. As little as does that, on one thread.
//!
//!     authz-adapter LISTEN CERBOS_ADDRESS

use std::env::args;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone)]
struct Cerbos {
    client: Client<HttpConnector, Full<Bytes>>,
    check: Uri,
}

/// The arguments that are decided on.
#[derive(Deserialize)]
struct Arguments<'a> {
    service: &'a str,
}

async fn decide(State(cerbos): State<Cerbos>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    match cerbos.allows(&uri, &headers, &body).await {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::FORBIDDEN,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Cerbos {
    async fn allows(&self, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> anyhow::Result<bool> {
        let tool = uri.path().rsplit('/').next().unwrap_or_default();
        let tenant = headers.get("x-tenant-id").context("no tenant")?.to_str()?;
        let arguments: Arguments<'_> = serde_json::from_slice(body)?;
        let question = json!({
            "principal": {"id": "agent", "roles": [tenant]},
            "resources": [{"actions": [tool], "resource": {"kind": "tool", "id": arguments.service}}],
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.check.clone())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(question.to_string())))?;
        let answer = self.client.request(request).await?;
        anyhow::ensure!(answer.status() == StatusCode::OK, "Cerbos answers {}", answer.status());
        let answer: serde_json::Value =
            serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
        let effect = answer.pointer("/results/0/actions").and_then(|actions| actions.get(tool));
        Ok(effect.is_some_and(|effect| effect == "EFFECT_ALLOW"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut words = args().skip(1);
    let listen = words.next().context("LISTEN")?;
    let check = format!("http://{}/api/check/resources", words.next().context("CERBOS_ADDRESS")?).parse()?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let router = Router::new().fallback(decide).with_state(Cerbos { client, check });
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, router).await?;
    Ok(())
}
