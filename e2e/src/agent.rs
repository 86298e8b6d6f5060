//! An agent: it calls tools over HTTP with its key, and knows nothing of approvals.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, ClientBuilder, Method, StatusCode};
use serde_json::Value;

/// Longer than any hold.
const TIMEOUT: Duration = Duration::from_secs(100);

/// A client with a base URL and a key.
#[derive(Clone)]
pub struct Agent {
    client: Client,
    base: String,
    key: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, if it is JSON; else `null`.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// A header as text; empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A member of the body as text; empty when there is none.
    #[must_use]
    pub fn text_of(&self, member: &str) -> &str {
        self.body[member].as_str().unwrap_or_default()
    }

    /// Panics with the whole answer unless it has this status; for chaining.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// Panics with the whole answer unless it has this status and problem code; for chaining.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.text_of("code")), (status, code), "{self:#?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        self
    }
}

impl Agent {
    /// HTTP/1.1.
    #[must_use]
    pub fn new(base: &str, key: &str) -> Self {
        Self::with(base, key, Client::builder().http1_only())
    }

    /// HTTP/2 without TLS and without asking first (prior knowledge, RFC 9113 section 3.3).
    #[must_use]
    pub fn h2c(base: &str, key: &str) -> Self {
        Self::with(base, key, Client::builder().http2_prior_knowledge())
    }

    fn with(base: &str, key: &str, builder: ClientBuilder) -> Self {
        // The builder wants a TLS provider even where nothing is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = builder.no_proxy().timeout(TIMEOUT).build().expect("a client");
        Self { client, base: base.trim_end_matches('/').to_owned(), key: key.to_owned() }
    }

    /// The same, with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The same, talking to somebody else.
    #[must_use]
    pub fn with_base(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// A call of a tool, to be sent.
    pub fn call(&self, tool: &str, arguments: &Value) -> Call {
        self.request(Method::POST, &format!("/tools/{tool}"), arguments.to_string())
    }

    /// A call that is not to be held.
    pub fn call_async(&self, tool: &str, arguments: &Value) -> Call {
        self.call(tool, arguments).header("prefer", "respond-async")
    }

    /// A POST.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, body.to_string()).send().await
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, "").send().await
    }

    /// Any request, to be sent.
    pub fn request(&self, method: Method, path: &str, body: impl Into<Body>) -> Call {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        if !self.key.is_empty() {
            request = request.header("x-api-key", &self.key);
        }
        Call(request.header("content-type", "application/json"))
    }
}

/// A request that is not sent yet.
#[derive(Debug)]
#[must_use]
pub struct Call(reqwest::RequestBuilder);

impl Call {
    /// Adds a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header's name");
        Self(self.0.header(name, HeaderValue::from_str(value).expect("a header's value")))
    }

    /// Gives up after this time.
    pub fn timeout(self, limit: Duration) -> Self {
        Self(self.0.timeout(limit))
    }

    /// Sends it. Panics when there is no answer.
    pub async fn send(self) -> Answer {
        self.try_send().await.unwrap_or_else(|e| panic!("no answer: {e:?}"))
    }

    /// Sends it in the background.
    pub fn spawn(self) -> tokio::task::JoinHandle<Answer> {
        tokio::spawn(self.send())
    }

    /// Sends it.
    pub async fn try_send(self) -> reqwest::Result<Answer> {
        let response = self.0.send().await?;
        let status: StatusCode = response.status();
        let headers = response.headers().clone();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status: status.as_u16(), headers, body, text })
    }
}
