//! A backend that says what a test scripts, in a runtime of its own: stopping it closes every connection
//! at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt as _, stream};
use oakallow_policy::audit::{Chained, EventType};
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::permit::Consumption;
use oakallow_policy::wire::{
    ApprovalAnswer, ApprovalRequest, ApprovalState, ApprovalStatus, AuditAck, AuditBatch, ConsumeRequest,
    Enrolled, ProxyContext, Secret, Signed,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, watch};

use super::policy::{self, AUDIENCE, ORG, now_ms, pinned};

/// What the backend knows, and what it was told.
pub(crate) struct Script {
    bundle: Mutex<Signed>,
    feed: broadcast::Sender<String>,
    approvals: Mutex<Vec<(Fingerprint, ApprovalState)>>,
    audit: Mutex<Vec<Chained>>,
    /// What proxies said of the calls that they asked for.
    asked: Mutex<Vec<ProxyContext>>,
    /// Whether it says no to who asks for an approval.
    refuses_approvals: AtomicBool,
    /// Whether it takes events.
    takes_audit: AtomicBool,
    /// The requests to consume an approval, by the life that will run.
    consumers: Mutex<Vec<String>>,
    /// How many of their next answers are lost.
    answers_lost: AtomicUsize,
    /// Whether their answers wait.
    answers_held: watch::Sender<bool>,
    /// Bundles of the org that were asked for.
    pub(crate) fetches: AtomicUsize,
}

impl Script {
    fn approvals(&self) -> MutexGuard<'_, Vec<(Fingerprint, ApprovalState)>> {
        self.approvals.lock().unwrap()
    }

    fn say(&self, event: &str, data: &Value) {
        // Nobody may listen yet.
        let _ = self.feed.send(format!("event: {event}\ndata: {data}\n\n"));
    }
}

/// The backend.
pub(crate) struct Backend {
    pub(crate) url: String,
    pub(crate) script: Arc<Script>,
    runtime: Option<Runtime>,
}

impl Backend {
    /// Begins to serve, with this bundle of the org.
    pub(crate) fn start(bundle: Signed) -> Self {
        let script = Arc::new(Script {
            bundle: Mutex::new(bundle),
            feed: broadcast::channel(32_768).0,
            approvals: Mutex::default(),
            audit: Mutex::default(),
            asked: Mutex::default(),
            refuses_approvals: AtomicBool::new(false),
            takes_audit: AtomicBool::new(true),
            consumers: Mutex::default(),
            answers_lost: AtomicUsize::new(0),
            answers_held: watch::Sender::new(false),
            fetches: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let addr = listen(&runtime, script.clone());
        Self { url: format!("http://{addr}"), script, runtime: Some(runtime) }
    }

    /// Gone: every connection is closed, and none is accepted.
    pub(crate) fn stop(&mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }

    /// Puts another bundle in the place of the old one, and says so.
    pub(crate) fn publish(&self, version: u64, bundle: Signed) {
        *self.script.bundle.lock().unwrap() = bundle;
        self.announce(version);
    }

    /// Says that there is something new.
    pub(crate) fn announce(&self, version: u64) {
        self.script.say("version", &json!({"version": version, "tenant": null}));
    }

    /// How often the org's bundle was asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.script.fetches.load(Ordering::SeqCst)
    }

    /// The approvals that were created.
    pub(crate) fn approvals(&self) -> Vec<ApprovalState> {
        self.script.approvals().iter().map(|(_, state)| state.clone()).collect()
    }

    /// What proxies said of the calls that they asked for, each time.
    pub(crate) fn asked(&self) -> Vec<ProxyContext> {
        self.script.asked.lock().unwrap().clone()
    }

    /// A person decides about the only approval, unless it has ended already.
    pub(crate) fn decide(&self, status: ApprovalStatus) {
        let mut approvals = self.script.approvals();
        let [(_, state)] = approvals.as_mut_slice() else { panic!("one approval: {approvals:?}") };
        if state.status != ApprovalStatus::Pending {
            return;
        }
        state.status = status;
        self.script.say("approval", &json!(state));
    }

    /// A person approves all that waits.
    pub(crate) fn approve_all(&self) {
        for (_, state) in
            self.script.approvals().iter_mut().filter(|(_, s)| s.status == ApprovalStatus::Pending)
        {
            state.status = ApprovalStatus::Approved;
            self.script.say("approval", &json!(state));
        }
    }

    /// A person approves one of those that wait, by its number.
    pub(crate) fn approve(&self, number: usize) {
        let mut approvals = self.script.approvals();
        let (_, state) = &mut approvals[number];
        state.status = ApprovalStatus::Approved;
        self.script.say("approval", &json!(state));
    }

    /// Says no to who asks for an approval.
    pub(crate) fn refuse_approvals(&self) {
        self.script.refuses_approvals.store(true, Ordering::SeqCst);
    }

    /// Whether it takes audit events.
    pub(crate) fn take_audit(&self, takes: bool) {
        self.script.takes_audit.store(takes, Ordering::SeqCst);
    }

    /// The next answers to who consumes an approval are lost: it is consumed, and nobody hears of it.
    pub(crate) fn lose_consumed(&self, answers: usize) {
        self.script.answers_lost.store(answers, Ordering::SeqCst);
    }

    /// Whether who consumes an approval has to wait for the answer.
    pub(crate) fn hold_consumed(&self, hold: bool) {
        self.script.answers_held.send_replace(hold);
    }

    /// Who asked to consume an approval, each time.
    pub(crate) fn consumers(&self) -> Vec<String> {
        self.script.consumers.lock().unwrap().clone()
    }

    /// As if it had never taken an event.
    pub(crate) fn forget_audit(&self) {
        self.script.audit.lock().unwrap().clear();
    }

    /// The audit events that it took.
    pub(crate) fn audit(&self) -> Vec<Chained> {
        self.script.audit.lock().unwrap().clone()
    }

    /// The types of the events of each life, in order of their beginnings.
    pub(crate) fn lives(&self) -> Vec<Vec<EventType>> {
        let mut order: Vec<String> = Vec::new();
        let mut lives: HashMap<String, Vec<EventType>> = HashMap::new();
        for event in self.audit() {
            let Some(txn) = event.event.txn else { continue };
            let life = lives.entry(txn.clone()).or_default();
            if life.is_empty() {
                order.push(txn);
            }
            life.push(event.event.kind);
        }
        order.iter().map(|txn| lives[txn].clone()).collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(runtime: &Runtime, script: Arc<Script>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("it can");
    let addr = listener.local_addr().expect("an address");
    let router = Router::new()
        .route("/v1/proxies/enroll", post(enroll))
        .route("/v1/proxies/{id}/bundle", get(bundle))
        .route("/v1/proxies/{id}/events", get(events))
        .route("/v1/proxies/{id}/approvals", post(states))
        .route("/v1/proxies/{id}/audit", post(audit))
        .route("/v1/proxies/{id}/heartbeat", post(async || StatusCode::NO_CONTENT))
        .route("/v1/approvals", post(approval))
        .route("/v1/approvals/{id}/consume", post(consume))
        .route("/v1/approvals/{id}/cancel", post(cancel))
        .with_state(script);
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        axum::serve(listener, router).await.expect("it serves");
    });
    addr
}

type Told = State<Arc<Script>>;

async fn enroll() -> Json<Enrolled> {
    let name = |text| oakallow_policy::Name::new(text).expect("a name");
    Json(Enrolled {
        proxy_id: "prx_test".to_owned(),
        proxy_key: Secret::new("oak_prox_test".to_owned()),
        org: name(ORG),
        audiences: vec![name(AUDIENCE)],
        tenants: None,
        bundle_key: pinned(),
    })
}

async fn bundle(State(script): Told, Query(query): Query<HashMap<String, String>>) -> Json<Signed> {
    if let Some(tenant) = query.get("tenant") {
        return Json(policy::tenant(tenant, 1));
    }
    script.fetches.fetch_add(1, Ordering::SeqCst);
    Json(script.bundle.lock().unwrap().clone())
}

async fn events(State(script): Told) -> Response {
    let feed = script.feed.subscribe();
    let said = stream::unfold(feed, async |mut feed| Some((feed.recv().await.ok()?, feed)));
    let hello = stream::once(async { ": hello\n\n".to_owned() });
    let body = Body::from_stream(hello.chain(said).map(Ok::<_, std::convert::Infallible>));
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn states(State(script): Told) -> Json<Value> {
    let approvals: Vec<ApprovalState> = script.approvals().iter().map(|(_, s)| s.clone()).collect();
    Json(json!({"approvals": approvals}))
}

async fn approval(State(script): Told, Json(request): Json<ApprovalRequest>) -> Response {
    if script.refuses_approvals.load(Ordering::SeqCst) {
        return conflict("refused");
    }
    let context = request.proxy.expect("from a proxy");
    let fingerprint = context.fingerprint;
    script.asked.lock().unwrap().push(context);
    let mut approvals = script.approvals();
    let found = approvals.iter().find(|(known, _)| *known == fingerprint).map(|(_, state)| state.clone());
    let (joined, approval) = match found {
        Some(state) => (true, state),
        None => {
            let number = approvals.len() + 1;
            let state = ApprovalState {
                id: format!("apr_{number}"),
                reference: format!("REF-{number}"),
                status: ApprovalStatus::Pending,
                expires_at: now_ms() + 3_600_000,
                note: None,
            };
            approvals.push((fingerprint, state.clone()));
            (false, state)
        }
    };
    Json(ApprovalAnswer { approval, joined, already_executed: None }).into_response()
}

async fn consume(
    State(script): Told,
    Path(id): Path<String>,
    Json(request): Json<ConsumeRequest>,
) -> Response {
    let answer = consumed(&script, id, request);
    // The sender lives as long as the backend.
    let _ = script.answers_held.subscribe().wait_for(|held| !held).await;
    let lost = |left: usize| left.checked_sub(1);
    match script.answers_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lost) {
        Ok(_) => StatusCode::BAD_GATEWAY.into_response(),
        Err(_) => answer,
    }
}

fn conflict(code: &str) -> Response {
    let problem =
        json!({"type": "about:blank", "title": "Conflict", "status": 409, "code": code, "detail": "no"});
    (StatusCode::CONFLICT, Json(problem)).into_response()
}

fn consumed(script: &Script, id: String, request: ConsumeRequest) -> Response {
    let mut consumers = script.consumers.lock().unwrap();
    let again = consumers.first() == Some(&request.txn);
    consumers.push(request.txn.clone());
    let mut approvals = script.approvals();
    let number = id.strip_prefix("apr_").and_then(|number| number.parse::<usize>().ok());
    let found = number.and_then(|number| approvals.get_mut(number - 1));
    let free = |s: &ApprovalState| s.status == ApprovalStatus::Approved || again;
    let Some((fingerprint, state)) = found.filter(|(_, s)| free(s)) else {
        return conflict("not_approved");
    };
    state.status = ApprovalStatus::Consumed;
    Json(Consumption { approval_id: id, fingerprint: *fingerprint, txn: request.txn }).into_response()
}

async fn cancel(State(script): Told, Path(id): Path<String>) -> StatusCode {
    for (_, state) in script.approvals().iter_mut().filter(|(_, state)| state.id == id) {
        state.status = ApprovalStatus::Cancelled;
    }
    StatusCode::NO_CONTENT
}

async fn audit(State(script): Told, Json(batch): Json<AuditBatch>) -> Response {
    if !script.takes_audit.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut taken = script.audit.lock().unwrap();
    let have = taken.last().map_or(0, |event| event.seq);
    let another = |e: &&Chained| taken.iter().any(|known| known.seq == e.seq && known.event.id != e.event.id);
    if batch.events.iter().find(another).is_some() {
        return conflict("audit_chain_broken");
    }
    taken.extend(batch.events.into_iter().filter(|event| event.seq > have));
    Json(AuditAck { acknowledged_seq: taken.last().map_or(0, |event| event.seq) }).into_response()
}
