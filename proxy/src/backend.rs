//! The proxy's side of the proxy protocol: one request a function.

use std::time::Duration;

use oakallow_policy::permit::Consumption;
use oakallow_policy::wire::{
    ApprovalAnswer, ApprovalRequest, ApprovalStates, ApprovalStatesRequest, AuditAck, ConsumeRequest, Enroll,
    Enrolled, Heartbeat, Problem, Secret, SeenDefinitions, Signed,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No request to the backend takes longer; streams are read apart.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Consuming an approval is one statement; what takes longer is asked again.
const CONSUME_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the backend did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// No answer, or none that says anything: try again.
    #[error("the backend cannot be reached: {0}")]
    Unreachable(String),
    /// It answered no.
    #[error("the backend refuses: {} ({})", .0.detail, .0.code)]
    Refused(Box<Problem>),
}

impl BackendError {
    /// The stable code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Unreachable(_) => None,
            Self::Refused(problem) => Some(&problem.code),
        }
    }
}

/// The backend, as this proxy.
#[derive(Clone)]
pub struct Backend {
    http: reqwest::Client,
    base: String,
    proxy_id: String,
    key: Secret,
}

/// Enrols: the one request that a proxy without an identity can make.
pub async fn enroll(base: &str, request: &Enroll) -> Result<Enrolled, BackendError> {
    let http = client()?;
    send(http.post(format!("{base}/v1/proxies/enroll")).timeout(TIMEOUT).json(request)).await
}

fn client() -> Result<reqwest::Client, BackendError> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(3))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|e| BackendError::Unreachable(e.to_string()))
}

impl Backend {
    /// The backend at `base` for an enrolled proxy.
    pub fn new(base: String, proxy_id: String, key: Secret) -> Result<Self, BackendError> {
        Ok(Self { http: client()?, base, proxy_id, key })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.key.expose())
    }

    fn own(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, &format!("/v1/proxies/{}{path}", self.proxy_id))
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, BackendError> {
        send(self.request(Method::POST, path).timeout(TIMEOUT).json(body)).await
    }

    /// The newest bundle of the org, or of one tenant.
    pub async fn bundle(&self, tenant: Option<&str>) -> Result<Signed, BackendError> {
        let query = tenant.map_or_else(String::new, |t| {
            url::form_urlencoded::Serializer::for_suffix("?".to_owned(), 1).append_pair("tenant", t).finish()
        });
        send(self.own(Method::GET, &format!("/bundle{query}")).timeout(TIMEOUT)).await
    }

    /// The stream of events, from after `last_event_id`.
    pub async fn events(&self, last_event_id: Option<&str>) -> Result<reqwest::Response, BackendError> {
        let request = self.own(Method::GET, "/events").header("accept", "text/event-stream");
        let request = last_event_id.iter().fold(request, |r, id| r.header("last-event-id", *id));
        answered(request.send().await.map_err(|e| unreachable_backend(&e))?).await
    }

    /// What became of approvals.
    pub async fn approval_states(&self, ids: Vec<String>) -> Result<ApprovalStates, BackendError> {
        let path = format!("/v1/proxies/{}/approvals", self.proxy_id);
        self.post(&path, &ApprovalStatesRequest { ids }).await
    }

    /// Creates or joins an approval.
    pub async fn approval(&self, request: &ApprovalRequest) -> Result<ApprovalAnswer, BackendError> {
        self.post("/v1/approvals", request).await
    }

    /// Consumes an approval: succeeds for one call, and as often as that call asks.
    pub async fn consume(&self, id: &str, request: &ConsumeRequest) -> Result<Consumption, BackendError> {
        let post = self.request(Method::POST, &format!("/v1/approvals/{id}/consume"));
        send(post.timeout(CONSUME_TIMEOUT).json(request)).await
    }

    /// Withdraws an approval that is not needed any more.
    pub async fn cancel(&self, id: &str) -> Result<(), BackendError> {
        let request = self.request(Method::POST, &format!("/v1/approvals/{id}/cancel"));
        answered(
            request
                .timeout(TIMEOUT)
                .json(&serde_json::json!({}))
                .send()
                .await
                .map_err(|e| unreachable_backend(&e))?,
        )
        .await
        .map(drop)
    }

    /// Hands over audit events: an `AuditBatch`, written already.
    pub async fn audit(&self, batch: Vec<u8>) -> Result<AuditAck, BackendError> {
        let request =
            self.own(Method::POST, "/audit").timeout(TIMEOUT).header("content-type", "application/json");
        send(request.body(batch)).await
    }

    /// Tells what tool servers say their tools are.
    pub async fn definitions(&self, seen: &SeenDefinitions) -> Result<(), BackendError> {
        let request = self.own(Method::POST, "/definitions").timeout(TIMEOUT).json(seen);
        answered(request.send().await.map_err(|e| unreachable_backend(&e))?).await.map(drop)
    }

    /// Says how this proxy is.
    pub async fn heartbeat(&self, beat: &Heartbeat) -> Result<(), BackendError> {
        let request = self.own(Method::POST, "/heartbeat").timeout(TIMEOUT).json(beat);
        answered(request.send().await.map_err(|e| unreachable_backend(&e))?).await.map(drop)
    }
}

async fn send<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, BackendError> {
    let response = answered(request.send().await.map_err(|e| unreachable_backend(&e))?).await?;
    response.json().await.map_err(|e| unreachable_backend(&e))
}

async fn answered(response: reqwest::Response) -> Result<reqwest::Response, BackendError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    match serde_json::from_str::<Problem>(&text) {
        Ok(problem)
            if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
                || problem.code == "too_many_pending_approvals" =>
        {
            Err(BackendError::Refused(Box::new(problem)))
        }
        // A final no that cannot be read is a no all the same.
        Err(_) if is_final(status) => Err(BackendError::Refused(Box::new(unread(status)))),
        _ => Err(BackendError::Unreachable(format!("it answers {status}"))),
    }
}

/// Whether asking again would get the same answer.
fn is_final(status: StatusCode) -> bool {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !passing.contains(&status)
}

fn unread(status: StatusCode) -> Problem {
    Problem {
        kind: "about:blank".to_owned(),
        title: "Refused".to_owned(),
        status: status.as_u16(),
        code: "unreadable".to_owned(),
        detail: format!("it answers {status} with something that is no problem document"),
        more: serde_json::Map::new(),
    }
}

fn unreachable_backend(e: &reqwest::Error) -> BackendError {
    // Without the URL: it is configuration, and a query could hold names.
    let cause = std::iter::successors(std::error::Error::source(e), |c| c.source()).last();
    BackendError::Unreachable(cause.map_or_else(|| e.to_string(), ToString::to_string))
}
