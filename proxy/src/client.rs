//! The agent's side of a request: reading it whole, keeping it company while it is held, answering it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use oakallow_policy::Permission;
use oakallow_policy::id::Name;
use oakallow_policy::wire::PROBLEM_JSON;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::app::App;
use crate::bodies::Share;
use crate::config::Limits;
use crate::enforce::Waiter;
use crate::observe::Trail;
use crate::progress;
use crate::refusal::Refusal;

/// How long a refused body is read on.
const DISCARD_MAX: Duration = Duration::from_secs(2);

/// So much room is made for a body that is announced; more only as it comes.
const ROOM_AHEAD_BYTES: usize = 32 * 1024;

/// The agent has gone.
pub struct Gone;

impl From<Box<pingora::Error>> for Gone {
    fn from(_: Box<pingora::Error>) -> Self {
        Self
    }
}

/// How a held MCP call is kept alive.
#[derive(Debug, Clone)]
pub struct Company {
    /// A comment this often keeps the connection open.
    pub comment_every: Duration,
    /// A progress notification this often keeps the client's timer from running out.
    pub progress: Option<(Value, Duration)>,
}

/// One request's agent.
pub struct Client<'s> {
    session: &'s mut Session,
    txn: String,
    company: Option<Company>,
    next_beat: Option<tokio::time::Instant>,
    progress: u64,
    streaming: bool,
    held: bool,
    cancelled: Option<Arc<Notify>>,
    trail: Trail,
    challenge: Option<HeaderValue>,
    /// Whatever the tool server sends behind its head, the answer has no body.
    bodiless: bool,
    /// Its body's memory.
    share: Option<Share>,
}

impl<'s> Client<'s> {
    /// The agent of a request.
    #[must_use]
    pub fn new(session: &'s mut Session, txn: &str) -> Self {
        Self {
            session,
            txn: txn.to_owned(),
            company: None,
            next_beat: None,
            progress: 0,
            streaming: false,
            held: false,
            cancelled: None,
            trail: Trail::current(),
            challenge: None,
            bodiless: false,
            share: None,
        }
    }

    /// Sets how a hold is kept alive; without it the agent waits in silence.
    pub fn keep_company(&mut self, company: Option<Company>) {
        self.company = company;
    }

    /// Sets what cancels the call besides the agent's leaving.
    pub fn cancelled_by(&mut self, cancelled: Option<Arc<Notify>>) {
        self.cancelled = cancelled;
    }

    /// How far the progress is that the agent has been told of; 0 when it was told of none.
    #[must_use]
    pub fn progress(&self) -> f64 {
        let tells = self.company.as_ref().is_some_and(|c| c.progress.is_some());
        if tells { progress::shift(self.progress) } else { 0.0 }
    }

    /// Whether its call was held, be it for a moment.
    #[must_use]
    pub fn was_held(&self) -> bool {
        self.held
    }

    /// Whether the answer has begun as a stream of events.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The head of an HTTP/1 request as it came; `None` over HTTP/2.
    #[must_use]
    pub fn raw_head(&self) -> Option<Bytes> {
        match self.session.as_downstream() {
            ServerSession::H1(h1) => Some(h1.get_headers_raw_bytes()),
            _ => None,
        }
    }

    /// Sets what a 401 says about where credentials come from.
    pub fn challenged_by(&mut self, challenge: Option<HeaderValue>) {
        self.challenge = challenge;
    }

    /// Lets no other request follow on this connection: where it would begin is not certain.
    pub fn last_of_connection(&mut self) {
        self.session.set_keepalive(None);
    }

    /// What was read of a body takes room as well, and may take many times as much.
    pub fn weighs(
        &mut self,
        (app, limits): (&App, &Limits),
        principal: &Name,
        bytes: usize,
    ) -> Result<(), Refusal> {
        app.bodies.take(&mut self.share, principal, bytes, limits)
    }

    /// Reads the whole body, within limits.
    pub async fn body(&mut self, (app, limits): (&App, &Limits), principal: &Name) -> Result<Bytes, Refusal> {
        let (bytes_max, time_max) = (limits.body_bytes_max, Duration::from_secs(limits.body_read_timeout_s));
        if self.session.get_header_bytes("expect").eq_ignore_ascii_case(b"100-continue")
            && let ServerSession::H1(h1) = self.session.as_downstream_mut()
        {
            let broken = |_| Refusal::InvalidRequest("the connection broke".to_owned());
            h1.write_continue_response().await.map_err(broken)?;
        }
        // Where a chunked body ends is for Pingora's parser to say, and it is lenient: a chunk without a
        // size is the last one, an extension may hold a line feed. What follows is never read as a request.
        let chunked = self.session.req_header().headers.contains_key("transfer-encoding");
        let announced = self.session.get_header_bytes("content-length");
        let announced = std::str::from_utf8(announced).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let read = async {
            let mut body = BytesMut::new();
            let broken = |_| Refusal::InvalidRequest("the body broke off".to_owned());
            while let Some(chunk) = self.session.read_request_body().await.map_err(broken)? {
                if body.len() + chunk.len() > bytes_max {
                    self.discard_body(bytes_max).await;
                    return Err(Refusal::BodyTooLarge { bytes_max });
                }
                if body.is_empty() {
                    // Not before something came.
                    body.reserve(announced.clamp(chunk.len(), chunk.len().max(ROOM_AHEAD_BYTES)));
                }
                body.extend_from_slice(&chunk);
                if let Err(refusal) = app.bodies.take(&mut self.share, principal, body.capacity(), limits) {
                    drop(body);
                    self.share = None;
                    self.discard_body(bytes_max).await;
                    return Err(refusal);
                }
            }
            Ok(body.freeze())
        };
        let body = tokio::time::timeout(time_max, read).await.unwrap_or(Err(Refusal::BodyTooSlow));
        if chunked || body.is_err() {
            self.last_of_connection();
        }
        body
    }

    /// Reads a little more of a body that is refused, so that an agent which sends first and listens
    /// afterwards gets to hear why (over HTTP/2 an answer before the end of the body may be lost).
    pub async fn discard_body(&mut self, bytes_max: usize) {
        let mut left = bytes_max;
        let read = async {
            while let Ok(Some(chunk)) = self.session.read_request_body().await {
                if chunk.len() > left {
                    return;
                }
                left -= chunk.len();
            }
        };
        // What comes later than this is not waited for.
        let _ = tokio::time::timeout(DISCARD_MAX, read).await;
    }

    fn plan_beat(&mut self) {
        let every =
            self.company.as_ref().map(|c| c.progress.as_ref().map_or(c.comment_every, |(_, every)| *every));
        self.next_beat = every.map(|every| tokio::time::Instant::now() + every);
    }

    /// Begins an answer.
    pub async fn begin(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
        decision: Option<Permission>,
        outcome_unknown: bool,
    ) -> Result<(), Gone> {
        self.trail.note(|noted| noted.status = Some(status.as_u16()));
        let mut answer = ResponseHeader::build(status, Some(headers.len() + 4))?;
        for (name, value) in &headers {
            answer.append_header(name.clone(), value.clone())?;
        }
        answer.insert_header("x-oakallow-txn", self.txn.as_str())?;
        if let Some(decision) = decision {
            answer.insert_header("x-oakallow-decision", decision.as_str())?;
        }
        if outcome_unknown {
            answer.insert_header("x-oakallow-outcome", "unknown")?;
        }
        let http1 = !self.session.is_http2();
        // Neither has a body, and only one of them may say how long that is (RFC 9110 sections 8.6, 15.3.6).
        match status {
            StatusCode::NO_CONTENT => drop(answer.remove_header("content-length")),
            StatusCode::RESET_CONTENT => {
                answer.insert_header("content-length", "0")?;
                self.bodiless = true;
            }
            _ => {}
        }
        let framed = headers.contains_key("content-length") || self.bodiless;
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if http1 && !framed && !bodiless {
            if self.session.req_header().version == Version::HTTP_11 {
                answer.insert_header("transfer-encoding", "chunked")?;
            } else {
                self.session.set_keepalive(None);
            }
        }
        self.session.write_response_header(Box::new(answer), false).await?;
        Ok(())
    }

    /// A part of the answer's body.
    pub async fn chunk(&mut self, bytes: Bytes) -> Result<(), Gone> {
        if self.bodiless {
            return Ok(());
        }
        self.trail.note(|noted| noted.bytes_out += bytes.len() as u64);
        self.session.write_response_body(Some(bytes), false).await?;
        Ok(())
    }

    /// The end of the answer.
    pub async fn end(&mut self) -> Result<(), Gone> {
        self.session.write_response_body(None, true).await?;
        Ok(())
    }

    /// A whole answer.
    pub async fn answer(
        &mut self,
        status: u16,
        mut headers: HeaderMap,
        decision: Option<Permission>,
        body: Bytes,
    ) -> Result<(), Gone> {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        headers.insert("content-length", HeaderValue::from(body.len()));
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        let unknown = headers.contains_key("x-oakallow-outcome");
        self.begin(status, headers, decision, unknown).await?;
        self.chunk(body).await?;
        self.end().await
    }

    /// A refusal as plain HTTP says it: a problem document (RFC 9457).
    pub async fn refuse(
        &mut self,
        refusal: &Refusal,
        decision: Option<Permission>,
        backend_url: &str,
    ) -> Result<(), Gone> {
        let answer = refusal.answer();
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        let mut body = json!({
            "type": "about:blank", "title": answer.title, "status": answer.status, "code": answer.code, "detail": answer.detail,
        });
        crate::refusal::more(refusal, &mut body);
        set(
            "content-type",
            if matches!(refusal, Refusal::Pending(_)) { "application/json" } else { PROBLEM_JSON },
        );
        if let Some(seconds) = answer.retry_after_s {
            set("retry-after", &seconds.to_string());
        }
        if let Refusal::Pending(state) = refusal {
            set("location", &format!("{backend_url}/v1/approvals/{}", state.id));
        }
        if refusal.outcome_unknown() {
            set("x-oakallow-outcome", "unknown");
        }
        if matches!(refusal, Refusal::Unauthenticated) {
            let plain = HeaderValue::from_static("Bearer realm=\"oakallow\"");
            headers.insert("www-authenticate", self.challenge.clone().unwrap_or(plain));
        }
        if matches!(
            refusal,
            Refusal::BodyTooLarge { .. } | Refusal::BodyTooSlow | Refusal::UnsupportedEncoding
        ) {
            // What is left of the body is not worth reading.
            self.session.set_keepalive(None);
        }
        self.answer(answer.status, headers, decision, Bytes::from(format!("{body}\n"))).await
    }
}

impl Waiter for Client<'_> {
    /// An agent that can read a stream gets one at once.
    async fn hold_begins(&mut self) -> Result<(), Gone> {
        self.held = true;
        // Its bytes count among those of the held calls now.
        self.share = None;
        if self.company.is_none() || self.streaming {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        self.begin(StatusCode::OK, headers, Some(Permission::RequiresApproval), false).await?;
        self.streaming = true;
        self.chunk(Bytes::from_static(b": waiting for a person\n\n")).await?;
        self.plan_beat();
        Ok(())
    }

    fn next_beat(&self) -> Option<tokio::time::Instant> {
        self.next_beat
    }

    async fn beat(&mut self) -> Result<(), Gone> {
        self.progress += 1;
        let token = self.company.as_ref().and_then(|c| c.progress.as_ref()).map(|(token, _)| token.clone());
        let text = match token {
            Some(token) => format!("event: message\ndata: {}\n\n", progress::waiting(&token, self.progress)),
            None => ": still waiting\n\n".to_owned(),
        };
        self.plan_beat();
        self.chunk(Bytes::from(text)).await
    }

    async fn gone(&mut self) {
        let cancelled = self.cancelled.clone();
        let cancelled = async {
            match &cancelled {
                Some(cancelled) => cancelled.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Anything but waiting means that nobody listens any more, or that what is said is not HTTP.
            _ = self.session.read_body_or_idle(true) => {}
            () = cancelled => {}
        }
    }
}
