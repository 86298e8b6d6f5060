//! An issuer of tokens with a server for its keys.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use oakallow_policy::canonical::base64url;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::policy::now_ms;
use super::tool::over_tls;

/// `iss` of its tokens.
pub(crate) const ISS: &str = "https://login.example/";
/// `aud` of tokens for the proxy.
pub(crate) const AUD: &str = "https://tools.example";

/// A key that signs tokens.
pub(crate) enum Signer {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// The one RSA key of the tests: ring makes none.
    pub(crate) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(include_bytes!("rsa.der")).expect("a key")))
    }

    pub(crate) fn p256() -> Self {
        let (way, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(way, &random).expect("a key");
        Self::P256(EcdsaKeyPair::from_pkcs8(way, key.as_ref(), &random).expect("a key"))
    }

    pub(crate) fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// Its public half.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Rsa(key) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": base64url(&public.n), "e": base64url(&public.e)})
            }
            Self::P256(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..])})
            }
            Self::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().as_ref())})
            }
        };
        jwk["kid"] = json!(kid);
        jwk
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("it signs");
                signature
            }
            Self::P256(key) => key.sign(&SystemRandom::new(), message).expect("it signs").as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with these parts.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        format!("{signed}.{}", base64url(&self.sign(signed.as_bytes())))
    }

    /// A good token of this subject, under this key's name.
    pub(crate) fn good(&self, kid: &str, subject: &str) -> String {
        self.token(&json!({"alg": self.algorithm(), "kid": kid, "typ": "at+jwt"}), &claims(subject))
    }
}

/// Header and claims, as they are signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    now_ms() / 1000
}

/// Good claims.
pub(crate) fn claims(subject: &str) -> Value {
    json!({"iss": ISS, "aud": AUD, "sub": subject, "exp": now_s() + 300, "nbf": now_s() - 1, "tenant": "acme"})
}

/// These claims, with another value of one of them.
pub(crate) fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut changed = claims.clone();
    changed[name] = value;
    changed
}

struct Memory {
    keys: Mutex<Option<Value>>,
    /// At `/.well-known/openid-configuration`.
    description: Mutex<Option<Value>>,
    asked: Mutex<Vec<String>>,
}

/// Its server; ends with this value.
pub(crate) struct KeyServer {
    pub(crate) url: String,
    memory: Arc<Memory>,
    task: JoinHandle<()>,
}

impl KeyServer {
    /// Serves these keys.
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (memory, router) = Self::idle(keys);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, memory, task }
    }

    /// The same over TLS, as `localhost`.
    pub(crate) async fn secured(keys: &[Value], config: Arc<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let (memory, router) = Self::idle(keys);
        let task = tokio::spawn(over_tls(listener, config, router));
        Self { url, memory, task }
    }

    fn idle(keys: &[Value]) -> (Arc<Memory>, Router) {
        let memory = Arc::new(Memory {
            keys: Mutex::new(Some(json!({"keys": keys}))),
            description: Mutex::default(),
            asked: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(memory.clone());
        (memory, router)
    }

    /// What it serves from now on; without keys it fails.
    pub(crate) fn serve(&self, keys: Option<&[Value]>) {
        *self.memory.keys.lock().unwrap() = keys.map(|keys| json!({"keys": keys}));
    }

    /// What it says of itself from now on (OpenID Connect Discovery).
    pub(crate) fn describes(&self, description: &Value) {
        *self.memory.description.lock().unwrap() = Some(description.clone());
    }

    /// What it was asked for, each time.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.memory.asked.lock().unwrap().clone()
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(memory): State<Arc<Memory>>, request: Request) -> Response {
    memory.asked.lock().unwrap().push(request.uri().to_string());
    if request.uri().path() == "/.well-known/openid-configuration" {
        let description = memory.description.lock().unwrap().clone();
        return axum::Json(description).into_response();
    }
    match memory.keys.lock().unwrap().clone() {
        Some(keys) => axum::Json(keys).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
