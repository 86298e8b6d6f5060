//! A tool server that runs what oakallow let through, and nothing else. jsonwebtoken, serde_json_canonicalizer, axum,
//! reqwest.
//!
//! Set: BACKEND (URL), TOOL_KEY (oak_tool_…), ORG, AUDIENCE, ALG (HS256 or EdDSA: the one that is set for the
//! audience), BASE_URL (this server as the proxy's route names it: `upstream`), PORT.

use std::collections::HashMap;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

/// Why a call does not run.
enum No {
    /// The token is not for this call.
    Refused(String),
    /// The backend is away, or says what we do not understand.
    Unchecked,
}

fn refused(why: impl Into<Box<dyn std::error::Error>>) -> No {
    No::Refused(why.into().to_string())
}

struct Server {
    client: reqwest::Client,
    backend: String,
    tool_key: String,
    audience: String,
    base_url: String,
    algorithm: Algorithm,
    validation: Validation,
    keys: Mutex<Keys>,
}

/// The audience's keys, and when they were fetched.
#[derive(Default)]
struct Keys {
    by_kid: HashMap<String, DecodingKey>,
    fetched: Option<Instant>,
}

/// What a request carries.
struct Call {
    token: String,
    tool: String,
    method: String,
    htu: String,
    body: Bytes,
}

impl Server {
    fn from_env() -> Result<Self, Box<dyn std::error::Error>> {
        let algorithm: Algorithm = env::var("ALG")?.parse()?;
        let audience = env::var("AUDIENCE")?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = 5;
        validation.validate_nbf = true;
        validation.set_audience(&[&audience]);
        validation.set_issuer(&[format!("oakallow/{}", env::var("ORG")?)]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss"]);
        Ok(Self {
            // No HTTP proxy of the environment stands between us and the backend.
            client: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?,
            backend: env::var("BACKEND")?,
            tool_key: env::var("TOOL_KEY")?,
            base_url: env::var("BASE_URL")?.trim_end_matches('/').to_owned(),
            audience,
            algorithm,
            validation,
            keys: Mutex::default(),
        })
    }

    /// The backend's answer. Without one nothing runs.
    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Value, No> {
        let answer = request.header("x-api-key", &self.tool_key).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status).map_err(|_| No::Unchecked)?;
        answer.json().await.map_err(|_| No::Unchecked)
    }

    /// The key of this name. They are fetched again every five minutes, and for an unknown kid (a rotation), but not
    /// more often than every five seconds, whoever sends what.
    async fn key(&self, kid: &str) -> Result<DecodingKey, No> {
        let mut keys = self.keys.lock().await;
        let age = keys.fetched.map_or(Duration::MAX, |at| at.elapsed());
        if age.as_secs() >= 300 || (!keys.by_kid.contains_key(kid) && age.as_secs() >= 5) {
            keys.fetched = Some(Instant::now());
            let url = format!("{}/v1/audiences/{}/keys", self.backend, self.audience);
            let answer = self.ask(self.client.get(url)).await?;
            let set: JwkSet = serde_json::from_value(answer).map_err(|_| No::Unchecked)?;
            keys.by_kid = set.keys.iter().filter_map(|jwk| self.usable(jwk)).collect();
        }
        keys.by_kid.get(kid).cloned().ok_or_else(|| refused("unknown key"))
    }

    /// A key for our algorithm; one for another is no key, not another way to verify.
    fn usable(&self, jwk: &Jwk) -> Option<(String, DecodingKey)> {
        let ours = match self.algorithm {
            Algorithm::HS256 => KeyAlgorithm::HS256,
            Algorithm::EdDSA => KeyAlgorithm::EdDSA,
            _ => return None,
        };
        (jwk.common.key_algorithm == Some(ours)).then_some(())?;
        Some((jwk.common.key_id.clone()?, DecodingKey::from_jwk(jwk).ok()?))
    }

    /// The arguments, if the token is for exactly this call. Offline; the token is not used up by it.
    async fn check(&self, call: &Call) -> Result<Value, No> {
        let header = decode_header(&call.token).map_err(refused)?;
        if header.typ.as_deref() != Some("oakallow-exec+jwt") || header.alg != self.algorithm {
            return Err(refused("wrong type or algorithm"));
        }
        let key = self.key(&header.kid.unwrap_or_default()).await?;
        let claims =
            decode::<Map<String, Value>>(&call.token, &key, &self.validation).map_err(refused)?.claims;
        let seconds = |claim| claims.get(claim).and_then(Value::as_u64);
        match (seconds("iat"), seconds("exp")) {
            (Some(iat), Some(exp)) if exp.saturating_sub(iat) <= 60 => {}
            _ => return Err(refused("lives too long")),
        }
        let arguments: Value = serde_json::from_slice(&call.body).map_err(refused)?;
        let expected = [
            ("bnd", Some("request".to_owned())),
            ("htm", Some(call.method.clone())),
            ("htu", Some(call.htu.clone())),
            ("bdh", Some(sha256(&call.body))),
            ("tool", Some(call.tool.clone())),
            ("ah", Some(canonical_sha256(&arguments)?)),
            // A tool that acts on a resource puts here which one, as it read it from the arguments.
            ("resource", None),
        ];
        for (claim, value) in expected {
            if claims.get(claim) != value.map(Value::from).as_ref() {
                return Err(refused(format!("the token has another {claim}")));
            }
        }
        Ok(arguments)
    }

    /// Uses the token up. The backend says yes once.
    async fn redeem(&self, call: &Call, arguments: &Value) -> Result<(), No> {
        let expected = json!({
            "token": call.token,
            "tool_name": call.tool,
            "htm": call.method,
            "htu": call.htu,
            "body_sha256": sha256(&call.body),
            "arguments_sha256": canonical_sha256(arguments)?,
        });
        let request = self.client.post(format!("{}/v1/tokens/verify", self.backend)).json(&expected);
        let answer = self.ask(request).await?;
        if answer.get("valid") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        Err(refused(answer.get("reason").and_then(Value::as_str).unwrap_or("no reason given")))
    }

    async fn run(&self, method: Method, uri: Uri, headers: &HeaderMap, body: Bytes) -> Result<Value, No> {
        let mut tokens = headers.get_all("x-oakallow-token").iter();
        let (Some(token), None) = (tokens.next(), tokens.next()) else {
            return Err(refused("not exactly one token"));
        };
        let call = Call {
            token: token.to_str().map_err(refused)?.to_owned(),
            tool: uri.path().trim_start_matches("/tools/").to_owned(),
            method: method.to_string(),
            htu: format!("{}{uri}", self.base_url),
            body,
        };
        let arguments = self.check(&call).await?;
        self.redeem(&call, &arguments).await?;
        Ok(json!({"ran": call.tool, "arguments": arguments}))
    }
}

fn sha256(content: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(content))
}

fn canonical_sha256(arguments: &Value) -> Result<String, No> {
    serde_json_canonicalizer::to_vec(arguments).map(|text| sha256(&text)).map_err(refused)
}

async fn call(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    match server.run(method, uri, &headers, body).await {
        Ok(done) => (StatusCode::OK, Json(done)),
        Err(No::Refused(why)) => (StatusCode::FORBIDDEN, Json(json!({"refused": why}))),
        Err(No::Unchecked) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"refused": "the token could not be checked"})))
        }
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it says where it listens")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Reqwest is built without a TLS provider of its own here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Arc::new(Server::from_env()?);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", env::var("PORT")?)).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback(call).with_state(server)).await?;
    Ok(())
}
