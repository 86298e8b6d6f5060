//! One request, from its header to its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use oakallow_policy::Permission;
use oakallow_policy::audit::ExecutionRecord;
use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::id::Kind;
use pingora::proxy::Session;
use sha2::{Digest as _, Sha256};

use crate::app::App;
use crate::call::{self, weight};
use crate::client::{Client, Gone};
use crate::clock;
use crate::connection::Connection;
use crate::enforce::{self, Bound, Ready, Refused, Target};
use crate::event::Subject;
use crate::fields;
use crate::forward::{Answer, Outgoing, passed_on, put_token, target};
use crate::head;
use crate::identity::{Audiences, Caller, Credential, Gate, Resource, WELL_KNOWN};
use crate::live::Live;
use crate::mcp;
use crate::media;
use crate::observe::Trail;
use crate::outcome::{BROKE_OFF, Outcome};
use crate::refusal::Refusal;
use crate::route::{Route, RouteKind};
use crate::unidentified;

/// How much of an answer is kept to see whether it says that the tool failed.
const PROBE_BYTES_MAX: usize = 1024 * 1024;

/// A request that has been read whole, from a known caller.
pub struct Received {
    /// The configuration that it began with.
    pub live: Arc<Live>,
    /// Its header.
    pub parts: Parts,
    /// Its body.
    pub body: Bytes,
    /// Who sent it.
    pub caller: Caller,
    /// By which route.
    pub route: Arc<Route>,
    /// Its place in the audit log, should it be a call.
    pub txn: String,
}

/// Answers one request. An error means that the connection cannot be used any more. (As an `async fn` it would be
/// twice as large, and it is copied for each request.)
pub fn request<'a>(
    app: &'a Arc<App>,
    session: &'a mut Session,
) -> impl Future<Output = Result<(), Gone>> + use<'a> {
    app.observer.begin().over(answer(app, session))
}

async fn answer(app: &Arc<App>, session: &mut Session) -> Result<(), Gone> {
    let txn = clock::new_id(Kind::Txn);
    let head = session.req_header();
    let raw_is_plain = head.raw_path().starts_with(b"/");
    let mut parts = head.as_owned_parts();
    let trail = Trail::current();
    let connection = Connection::of(session);
    trail.note(|noted| {
        noted.txn.clone_from(&txn);
        noted.listener = connection.as_ref().map(|c| c.listener().name.clone()).unwrap_or_default();
        noted.client = connection.as_ref().and_then(|c| c.client());
        noted.http_version = version(parts.version);
    });
    trail.follow_headers(&parts.headers);
    // An agent that does not read must not keep the outcome of its call from being recorded.
    let live = app.live();
    let patience = Duration::from_secs(live.config.limits.write_timeout_s);
    session.as_downstream_mut().set_write_timeout(Some(patience));
    let mut client = Client::new(session, &txn);
    // Each one is accompanied; one that is not came by no listener, and nobody could say who calls.
    let connection = connection.ok_or(Gone)?;
    let received = match well_formed((&live, &connection), &parts, raw_is_plain, &mut client) {
        Ok(()) => match describe((&live, &connection), &parts, &mut client) {
            Some(document) => return client.answer(200, json_fields(), None, document).await,
            None => receive((app, &live, &connection), &parts, &mut client).await,
        },
        Err(refusal) => Err(refusal),
    };
    let (body, caller, route) = match received {
        Ok(received) => received,
        Err(refusal) => {
            let snapshot = app.policy.snapshot();
            let sender = Gate::of(app, &connection, &snapshot).principal(&parts.headers).await;
            let route = route_of(&live, &parts);
            let subject = sender.as_ref().map(|p| Subject::request(&txn, (p, None), route.as_deref()));
            trail.note(|noted| {
                noted.principal.clone_from(&sender);
                route.iter().for_each(|route| noted.of_route(route));
            });
            return turn_down((app, &live), subject.as_ref(), refusal, &mut client).await;
        }
    };
    trail.note(|noted| {
        noted.principal = Some(caller.principal.clone());
        noted.tenant.clone_from(&caller.tenant);
        noted.of_route(&route);
        noted.bytes_in = body.len() as u64;
    });
    if matches!(caller.credential, Credential::Token(_)) {
        // It is for this proxy. Nothing that goes on is made of anything but these parts.
        parts.headers.remove(AUTHORIZATION);
    }
    let incoming = Received { live, parts, body, caller, route, txn };
    match incoming.route.kind {
        RouteKind::Http => plain(app, &incoming, &mut client).await,
        RouteKind::Mcp => mcp::serve(app, &incoming, &mut client).await,
        // Its pattern matches nothing, so this is never asked for.
        RouteKind::Stdio => {
            turn_down((app, &incoming.live), Some(&incoming.subject()), Refusal::UnknownRoute, &mut client)
                .await
        }
    }
}

impl Received {
    /// For the record of a request that is no call.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let sender = (&self.caller.principal, self.caller.tenant.as_ref());
        Subject::request(&self.txn, sender, Some(&self.route))
    }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// Answers a request in which no call was identified, once that is recorded.
async fn turn_down(
    (app, live): (&App, &Live),
    subject: Option<&Subject>,
    refusal: Refusal,
    client: &mut Client<'_>,
) -> Result<(), Gone> {
    let recorded = unidentified::refused(app, subject, refusal.code()).await;
    client.refuse(&recorded.err().unwrap_or(refusal), None, &live.config.backend_url).await
}

fn route_of(live: &Live, parts: &Parts) -> Option<Arc<Route>> {
    live.config.routes.iter().find(|r| r.pattern.matches(parts.uri.path()).is_some()).cloned()
}

/// Refuses what two readers may take for different requests, and connections that are too many.
fn well_formed(
    (live, connection): (&Live, &Connection),
    parts: &Parts,
    raw_is_plain: bool,
    client: &mut Client<'_>,
) -> Result<(), Refusal> {
    if connection.is_surplus() {
        client.last_of_connection();
        return Err(Refusal::TooManyConnections);
    }
    if let Some(Err(problem)) = client.raw_head().map(|raw| head::check(&raw)) {
        client.last_of_connection();
        return Err(Refusal::InvalidRequest(problem.to_owned()));
    }
    fields::check(parts, raw_is_plain, live.config.limits.header_bytes_max)
}

/// Where tokens come from, if that is what is asked; a 401 will say where to ask.
fn describe(
    (live, connection): (&Live, &Connection),
    parts: &Parts,
    client: &mut Client<'_>,
) -> Option<Bytes> {
    let resource = Resource::of(connection.listener(), parts)?;
    let is_route = |path: &str| live.config.routes.iter().any(|r| r.pattern.matches(path).is_some());
    let path = parts.uri.path();
    let has_token = parts.headers.contains_key(AUTHORIZATION);
    client.challenged_by(resource.challenge(if is_route(path) { path } else { "" }, has_token));
    let of = path.strip_prefix(WELL_KNOWN).filter(|of| of.is_empty() || is_route(of))?;
    (parts.method == Method::GET).then(|| resource.document(&live.config, of).to_string().into())
}

fn json_fields() -> HeaderMap {
    HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

async fn receive(
    (app, live, connection): (&App, &Live, &Connection),
    parts: &Parts,
    client: &mut Client<'_>,
) -> Result<(Bytes, Caller, Arc<Route>), Refusal> {
    let route = route_of(live, parts).ok_or(Refusal::UnknownRoute)?;
    if !route.methods.is_empty() && !route.methods.contains(&parts.method) {
        return Err(Refusal::MethodNotAllowed);
    }
    let snapshot = app.policy.snapshot();
    if snapshot.rules.is_closed() {
        return Err(Refusal::PolicyUnavailable("no policy is loaded yet".to_owned()));
    }
    let gate = Gate::of(app, connection, &snapshot);
    let caller = gate.authenticate(&parts.headers, Audiences::of(&route, &live.config.routes)).await?;
    fields::check_credential(&parts.headers, gate.secret(&parts.headers))?;
    if parts.headers.contains_key("content-encoding") {
        return Err(Refusal::UnsupportedEncoding);
    }
    let limits = &live.config.limits;
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limits.body_bytes_max) {
        if parts.version == Version::HTTP_2 {
            client.discard_body(limits.body_bytes_max).await;
        }
        return Err(Refusal::BodyTooLarge { bytes_max: limits.body_bytes_max });
    }
    let body = client.body((app, limits), &caller.principal).await?;
    media::check(route.kind, &parts.headers, &body)?;
    Ok((body, caller, route))
}

/// A call that is one HTTP request.
async fn plain(app: &Arc<App>, incoming: &Received, client: &mut Client<'_>) -> Result<(), Gone> {
    let backend_url = &incoming.live.config.backend_url;
    let snapshot = app.policy.snapshot();
    let Received { live, parts, body, caller, route, txn } = incoming;
    let prepared = call::http::identify((route, txn), parts, body, caller, &snapshot)
        .and_then(|call| {
            client.weighs((app, &live.config.limits), &caller.principal, weight::under_way(&call, 1))?;
            Ok(call)
        })
        .and_then(|call| Ok((call, to(target(&route.upstream, parts.uri.path(), false)?, parts, body))));
    let (call, sent) = match prepared {
        Ok(prepared) => prepared,
        Err(refusal) => return turn_down((app, live), Some(&incoming.subject()), refusal, client).await,
    };
    let Ready { permit, token, outcome } =
        match enforce::admit((app, live), &call, Bound::Request(&sent), client).await {
            Ok(ready) => ready,
            Err(Refused { refusal, permission }) => {
                return client.refuse(&refusal, permission, backend_url).await;
            }
        };
    let Some(upstream) = live.upstreams.get(&route.name) else {
        outcome.not_forwarded("unknown_route").await;
        return client.refuse(&Refusal::UnknownRoute, None, backend_url).await;
    };
    let mut headers = passed_on(&parts.headers);
    media::put(&mut headers, body);
    put_token(&mut headers, &token);
    Trail::current().put_headers(&mut headers);
    let outgoing = Outgoing { method: sent.method, uri: sent.uri, headers, body: body.clone() };
    let response = match upstream.send(permit, outgoing, None).await {
        Ok(response) => response,
        Err(refusal) => {
            not_answered(outcome, &refusal).await;
            return client.refuse(&refusal, Some(Permission::Allowed), backend_url).await;
        }
    };
    let status = response.status();
    let begun = client.begin(status, answer_headers(&response), Some(Permission::Allowed), false).await;
    let (seen, whole) = relay(response, route.idle_timeout, client, begun.is_ok()).await;
    record(outcome, whole.is_ok(), !status.is_success(), seen.execution(status)).await;
    whole
}

/// The target of a request that goes on as it came.
#[must_use]
pub fn to(uri: http::Uri, parts: &Parts, body: &[u8]) -> Target {
    Target { method: parts.method.clone(), uri, body_sha256: sha256(body) }
}

/// Records that no answer came.
pub async fn not_answered(outcome: Outcome, refusal: &Refusal) {
    if refusal.outcome_unknown() {
        outcome.unknown(refusal.code(), ExecutionRecord::default()).await;
    } else {
        outcome.not_forwarded(refusal.code()).await;
    }
}

/// Records what came.
pub async fn record(outcome: Outcome, whole: bool, failed: bool, execution: ExecutionRecord) {
    if whole {
        outcome.answered(failed, execution);
    } else {
        outcome.unknown(BROKE_OFF, execution).await;
    }
}

/// The fields of an answer that go on, its length included.
#[must_use]
pub fn answer_headers(response: &Response<Answer>) -> HeaderMap {
    let mut headers = passed_on(response.headers());
    // Beside a transfer coding the length is none (RFC 9112 section 6.3).
    let coded = response.headers().contains_key(TRANSFER_ENCODING);
    if let Some(length) = response.headers().get(CONTENT_LENGTH).filter(|_| !coded) {
        headers.insert(CONTENT_LENGTH, length.clone());
    }
    headers
}

/// What was seen of an answer that went by.
#[derive(Default)]
pub struct Seen {
    hash: Sha256,
    bytes: u64,
    /// Its beginning.
    pub probe: Vec<u8>,
}

impl Seen {
    /// Notes a part.
    pub fn note(&mut self, part: &[u8]) {
        self.hash.update(part);
        self.bytes += part.len() as u64;
        let room = PROBE_BYTES_MAX.saturating_sub(self.probe.len());
        self.probe.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
    }

    /// For the log: digests, never the body.
    #[must_use]
    pub fn execution(&self, status: StatusCode) -> ExecutionRecord {
        ExecutionRecord {
            status: Some(status.as_u16()),
            response_sha256: Some(hex(&self.hash.clone().finalize())),
            response_bytes: Some(self.bytes),
            ..ExecutionRecord::default()
        }
    }
}

/// Passes an answer's body on as it comes. When the agent leaves, the rest is still read: what became of
/// the call is worth knowing. An error means that the answer did not come whole.
pub async fn relay(
    response: Response<Answer>,
    idle: Duration,
    client: &mut Client<'_>,
    mut listening: bool,
) -> (Seen, Result<(), Gone>) {
    let mut seen = Seen::default();
    let mut body = response.into_body();
    loop {
        match tokio::time::timeout(idle, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                seen.note(&data);
                listening = listening && client.chunk(data).await.is_ok();
            }
            Ok(Some(Err(_))) | Err(_) => return (seen, Err(Gone)),
        }
    }
    if listening {
        // Failing to say the end is the agent's loss: the call is whole.
        let _ = client.end().await;
    }
    (seen, Ok(()))
}
