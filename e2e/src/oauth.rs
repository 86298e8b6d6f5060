//! A small authorization server (OAuth 2.1): it describes itself (RFC 8414), registers clients (RFC 7591), and gives
//! tokens for an authorization code with PKCE (RFC 7636) or for a client's own credentials, to the resource that is
//! asked for (RFC 8707). A person is always signed in, and always consents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use oakallow_policy::canonical::{base64url, sha256, unbase64url};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Who is signed in.
pub const PERSON: &str = "grace";
/// A client with a secret, which calls for itself.
pub const MACHINE: (&str, &str) = ("nightly-report", "machine-secret");
/// Its tokens are for a tenant.
pub const TENANT: &str = "acme";

type Fields = HashMap<String, String>;

struct Memory {
    url: String,
    key: Ed25519KeyPair,
    /// What an authorization code stands for.
    codes: Mutex<HashMap<String, Fields>>,
    /// Requests, in order: method and path.
    seen: Mutex<Vec<String>>,
}

/// The server; ends with this value.
pub struct AuthorizationServer {
    /// `iss` of its tokens, and where it is.
    pub url: String,
    memory: Arc<Memory>,
    task: JoinHandle<()>,
}

impl AuthorizationServer {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key");
        let memory = Memory { url: url.clone(), key, codes: Mutex::default(), seen: Mutex::default() };
        let memory = Arc::new(memory);
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(description))
            .route("/.well-known/openid-configuration", get(description))
            .route("/keys", get(keys))
            .route("/register", post(register))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(memory.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, memory, task }
    }

    /// What it was asked for, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.memory.seen.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for AuthorizationServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Told = State<Arc<Memory>>;

impl Memory {
    fn saw(&self, what: impl Into<String>) {
        self.seen.lock().expect("nobody panics with it").push(what.into());
    }

    /// A token of this subject, for this resource and no other.
    fn token(&self, subject: &str, resource: &str) -> Value {
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let head = json!({"alg": "EdDSA", "kid": "one", "typ": "at+jwt"});
        // Good for as long as a test may take, and longer.
        let claims = json!({
            "iss": self.url, "aud": resource, "sub": subject, "exp": 4_000_000_000_u64, "tenant": TENANT,
        });
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = base64url(self.key.sign(signed.as_bytes()).as_ref());
        json!({"access_token": format!("{signed}.{signature}"), "token_type": "Bearer", "expires_in": 3600})
    }
}

async fn description(State(memory): Told) -> Json<Value> {
    let url = &memory.url;
    Json(json!({
        "issuer": url, "jwks_uri": format!("{url}/keys"),
        "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "registration_endpoint": format!("{url}/register"),
        "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
        "grant_types_supported": ["authorization_code", "client_credentials"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys(State(memory): Told) -> Json<Value> {
    let x = base64url(memory.key.public_key().as_ref());
    Json(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x}]}))
}

async fn register(State(memory): Told, Json(mut client): Json<Value>) -> (StatusCode, Json<Value>) {
    memory.saw("register");
    client["client_id"] = json!("registered");
    client["token_endpoint_auth_method"] = json!("none");
    (StatusCode::CREATED, Json(client))
}

async fn authorize(State(memory): Told, Query(asked): Query<Fields>) -> Response {
    memory.saw("authorize");
    let of = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let proper = of("response_type") == "code" && of("code_challenge_method") == "S256";
    if !proper || of("client_id") != "registered" || of("resource").is_empty() {
        return (StatusCode::BAD_REQUEST, format!("{asked:?}")).into_response();
    }
    let code = base64url(&sha256(of("code_challenge").as_bytes()));
    let (back, state) = (of("redirect_uri"), of("state"));
    memory.codes.lock().expect("nobody panics with it").insert(code.clone(), asked);
    Redirect::to(&format!("{back}?code={code}&state={state}&iss={}", memory.url)).into_response()
}

async fn token(State(memory): Told, headers: HeaderMap, Form(asked): Form<Fields>) -> Response {
    let of = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let (grant, resource) = (of("grant_type"), of("resource"));
    memory.saw(format!("token by {grant} for {resource}"));
    let subject = match grant.as_str() {
        "authorization_code" => {
            let code = memory.codes.lock().expect("nobody panics with it").remove(&of("code"));
            let challenge = base64url(&sha256(of("code_verifier").as_bytes()));
            let same = |stood_for: &Fields| {
                let is = |name: &str, value: &str| stood_for.get(name).is_some_and(|v| v == value);
                is("code_challenge", &challenge)
                    && is("resource", &resource)
                    && is("redirect_uri", &of("redirect_uri"))
            };
            code.filter(same).map(|_| PERSON)
        }
        "client_credentials" => basic(&headers)
            .filter(|(name, secret)| (name.as_str(), secret.as_str()) == MACHINE)
            .map(|_| MACHINE.0),
        _ => None,
    };
    match subject {
        Some(subject) => Json(memory.token(subject, &resource)).into_response(),
        None => (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response(),
    }
}

/// RFC 7617, whose alphabet is not that of URLs.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = text.replace('+', "-").replace('/', "_");
    let text = String::from_utf8(unbase64url(text.trim_end_matches('='))?).ok()?;
    let (name, secret) = text.split_once(':')?;
    Some((name.to_owned(), secret.to_owned()))
}
