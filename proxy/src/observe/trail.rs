//! What is noted of one request while it goes its way.
//!
//! It goes with the task that works on the request, not through every signature: nothing may depend on it. Should
//! the request end early (a panic, a task that is dropped), what was noted until then is written all the same.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use oakallow_policy::audit::DecisionRecord;
use oakallow_policy::id::Name;
use serde_json::{Map, Value};

use super::context::Context;
use super::{Observer, access, spans};
use crate::call::IdentifiedCall;
use crate::clock;
use crate::route::Route;

tokio::task_local! {
    static CURRENT: Trail;
}

/// A part of a request's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Rules.
    Decide,
    /// A person.
    Hold,
    /// The approval is spent.
    Consume,
    /// The intent is stored.
    Intent,
    /// The tool server.
    Upstream,
}

/// A phase that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) phase: Phase,
    pub(super) begun: Instant,
    pub(super) took: Duration,
}

/// One request's; empty when nobody wants to see it.
#[derive(Clone)]
pub struct Trail(Option<Arc<Watched>>);

struct Watched {
    observer: Arc<Observer>,
    begun: Instant,
    begun_at_ns: u64,
    noted: Mutex<Noted>,
}

/// In the place of a listener: standard input and output.
pub const STDIO: &str = "stdio";

/// What is known so far: names and numbers, never an argument, a field's value or a secret.
#[derive(Default)]
pub struct Noted {
    /// Its life in the audit log.
    pub txn: String,
    /// How it came: the listener's address, or [`STDIO`].
    pub listener: Arc<str>,
    /// The client's address, as far as this machine sees it; none over a socket or stdio.
    pub client: Option<IpAddr>,
    /// `1.0`, `1.1` or `2`; none over stdio.
    pub http_version: Option<&'static str>,
    /// Who sent it.
    pub principal: Option<Name>,
    /// For whom.
    pub tenant: Option<Name>,
    /// The route's name.
    pub route: Option<Name>,
    /// The tool.
    pub tool: Option<Name>,
    /// What it acts on.
    pub resource: Option<Name>,
    /// The method of an MCP message, when it is a known one.
    pub mcp_method: Option<&'static str>,
    /// The version of MCP that the message or its header says, when it looks like one.
    pub mcp_version: Option<String>,
    /// A digest of the MCP session's id.
    pub mcp_session: Option<String>,
    /// What the rules said.
    pub decision: Option<&'static str>,
    /// Which gate or level said it.
    pub resolved_from: Option<String>,
    /// The approval that it waited for.
    pub approval: Option<String>,
    /// Why it was let through.
    pub permit: Option<&'static str>,
    /// Of the answer.
    pub status: Option<u16>,
    /// What became of it at the tool server.
    pub outcome: Option<&'static str>,
    /// The code of a refusal, or why there is no whole answer.
    pub error: Option<&'static str>,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the answer's body.
    pub bytes_out: u64,
    pub(super) context: Option<Context>,
    pub(super) passed: Vec<Passed>,
}

impl Noted {
    /// The names of a call.
    pub fn call(&mut self, call: &IdentifiedCall) {
        self.principal = Some(call.names.principal.clone());
        self.tenant = call.names.tenant.clone();
        self.tool = Some(call.names.tool.clone());
        self.resource = call.names.resource.clone();
    }

    /// What the rules said; the last time counts.
    pub fn decided(&mut self, record: &DecisionRecord) {
        self.decision = Some(record.permission.as_str());
        self.resolved_from = Some(record.resolved_from.clone());
    }

    /// How it came.
    pub fn of_route(&mut self, route: &Route) {
        self.route = Some(route.name.clone());
    }

    /// How long a phase took; all of them when it came several times.
    pub(super) fn took(&self, phase: Phase) -> Option<Duration> {
        let passed = self.passed.iter().filter(|p| p.phase == phase);
        passed.map(|p| p.took).reduce(|a, b| a + b)
    }
}

/// A request as it ended.
pub(super) struct Ended<'a> {
    pub(super) begun: Instant,
    pub(super) begun_at_ns: u64,
    pub(super) noted: &'a Noted,
}

impl Trail {
    /// Of a request that nobody watches.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    pub(super) fn new(observer: Arc<Observer>) -> Self {
        let noted = Mutex::new(Noted::default());
        Self(Some(Arc::new(Watched { observer, begun: Instant::now(), begun_at_ns: clock::now_ns(), noted })))
    }

    /// That of the request which the running task works on.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or(Self(None))
    }

    /// Works on the request, with this as the current one. (An `async fn` would keep room for the work twice, for as
    /// long as a call is held.)
    pub fn over<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), work)
    }

    /// Notes something.
    pub fn note(&self, what: impl FnOnce(&mut Noted)) {
        if let Some(watched) = &self.0 {
            what(&mut watched.noted());
        }
    }

    /// Now, if somebody wants to know.
    #[must_use]
    pub fn now(&self) -> Option<Instant> {
        self.0.as_ref().map(|_| Instant::now())
    }

    /// A phase that began then has ended.
    pub fn passed(&self, phase: Phase, begun: Option<Instant>) {
        let Some(begun) = begun else { return };
        self.note(|noted| noted.passed.push(Passed { phase, begun, took: begun.elapsed() }));
    }

    /// Whose trace the request belongs to, as its header fields say.
    pub fn follow_headers(&self, headers: &HeaderMap) {
        let Some(watched) = &self.0 else { return };
        let found = Context::of_headers(headers);
        watched.follow(found);
    }

    /// The same, as an MCP message's `_meta` says, which is closer to the call than the header.
    pub fn follow_meta(&self, params: &Map<String, Value>) {
        let Some(watched) = &self.0 else { return };
        if let Some(found) = Context::of_meta(params) {
            watched.follow(Some(found));
        }
    }

    /// Has the tool server continue the trace.
    pub fn put_headers(&self, headers: &mut HeaderMap) {
        self.note(|noted| noted.context.iter().for_each(|context| context.put_headers(headers)));
    }

    /// The same, in an MCP message that is written anew anyway.
    pub fn put_meta(&self, message: &mut Value) {
        self.note(|noted| noted.context.iter().for_each(|context| context.put_meta(message)));
    }
}

impl Watched {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        // Whole after every step, so a panic elsewhere does not spoil it.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, found: Option<Context>) {
        let context = match &self.observer.tracer {
            Some(tracer) => Some(tracer.within(found)),
            // Not ours to change; its id stands in the access log.
            None => found,
        };
        self.noted().context = context;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let noted = self.noted.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = Ended { begun: self.begun, begun_at_ns: self.begun_at_ns, noted };
        if let Some(access) = &self.observer.access {
            access.write(&access::Line::of(&ended));
        }
        if let Some(tracer) = &self.observer.tracer {
            spans::of(&ended).into_iter().for_each(|spans| tracer.send(spans));
        }
    }
}
