//! What is known of a connection while Pingora serves it: how many there are, whether it is one too many, and by
//! when the head of its next request has to be whole. Pingora bounds each read, and a client that sends a byte a
//! minute is never late for one.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::GetProxyDigest;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Config;
use crate::listen::Listener;
use crate::listen::peer::Peer;

/// Connections beyond the limit that are told so; more than these are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// Time to read the answer: over HTTP/2 other requests would follow on the same connection.
const SURPLUS_KEPT: Duration = Duration::from_secs(1);

/// One in so many of all places is for the listeners' own, in equal parts. The others are for whoever comes first.
const OWN_PART: usize = 2;

/// Counts connections.
#[derive(Clone, Default)]
pub struct Connections(Arc<Counts>);

#[derive(Default)]
struct Counts {
    all: AtomicUsize,
    /// In places that any listener may take.
    common: AtomicUsize,
    /// One too many each.
    surplus: AtomicUsize,
}

/// What a connection has taken: lest many at one listener leave none for another, each has some of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Own,
    Common,
    /// None: it hears that, and ends.
    Surplus,
}

#[derive(Clone, Copy)]
struct Patience {
    /// For the head of a request.
    head: Duration,
    /// Between two requests.
    idle: Duration,
}

/// One connection.
pub struct Connection {
    all: Connections,
    /// By which it came.
    listener: Arc<Listener>,
    /// From where, over TCP.
    client: Option<IpAddr>,
    /// What its client has shown.
    peer: OnceLock<Arc<Peer>>,
    place: Place,
    patience: Patience,
    /// Requests that it carries at one time over HTTP/2, whatever another configuration says: its client was told so
    /// at its beginning.
    streams_max: usize,
    state: Mutex<State>,
    /// Told when it is to end at once.
    cut: Notify,
}

struct State {
    /// Requests under way; over HTTP/2 there may be several.
    requests: usize,
    /// By when a request has to have begun, if none is under way.
    due: Instant,
}

impl Connections {
    /// A new connection; `None` when it is so far beyond the limit that it gets no answer.
    #[must_use]
    pub fn enter(
        &self,
        config: &Config,
        listener: &Arc<Listener>,
        client: Option<IpAddr>,
    ) -> Option<Arc<Connection>> {
        let limits = &config.limits;
        let patience = Patience {
            head: Duration::from_secs(limits.head_read_timeout_s),
            idle: Duration::from_secs(limits.idle_timeout_s),
        };
        let place = self.place(limits.connections_max, config.listen.data.len(), listener)?;
        self.0.all.fetch_add(1, Ordering::Relaxed);
        // From here on dropping it counts down.
        let connection = Connection {
            all: self.clone(),
            listener: listener.clone(),
            client,
            peer: OnceLock::new(),
            place,
            patience,
            streams_max: limits.streams_per_connection_max,
            state: Mutex::new(State { requests: 0, due: Instant::now() + patience.head }),
            cut: Notify::new(),
        };
        Some(Arc::new(connection))
    }

    fn place(&self, connections_max: usize, listeners: usize, listener: &Listener) -> Option<Place> {
        let own = connections_max / OWN_PART / listeners.max(1);
        let common = connections_max.saturating_sub(own * listeners);
        [
            (Place::Own, &listener.own, own),
            (Place::Common, &self.0.common, common),
            (Place::Surplus, &self.0.surplus, TURNED_AWAY_MAX),
        ]
        .into_iter()
        .find_map(|(place, taken, max)| takes_one(taken, max).then_some(place))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.all.load(Ordering::Relaxed)
    }
}

fn takes_one(taken: &AtomicUsize, max: usize) -> bool {
    let more = |taken: usize| (taken < max).then_some(taken + 1);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Counts { all, common, surplus } = &*self.all.0;
        all.fetch_sub(1, Ordering::Relaxed);
        let taken = match self.place {
            Place::Own => &self.listener.own,
            Place::Common => common,
            Place::Surplus => surplus,
        };
        taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Makes it known to the requests that come over this stream.
    pub fn accompany(self: &Arc<Self>, stream: &mut impl GetProxyDigest) {
        // The one place that Pingora has for what belongs to a connection; it is meant for the answer of a proxy on
        // the way to a server.
        let Ok(no_answer) = ResponseHeader::build(StatusCode::OK, Some(0)) else { return };
        stream.set_proxy_digest(ProxyDigest::new(Box::new(no_answer), Some(Box::new(self.clone()))));
    }

    /// The connection of a request.
    #[must_use]
    pub fn of(session: &Session) -> Option<Arc<Self>> {
        let digest = session.as_downstream().digest()?.proxy_digest.clone()?;
        digest.user_data.as_ref()?.downcast_ref::<Arc<Self>>().cloned()
    }

    /// By which it came.
    #[must_use]
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// The address of whoever connected, over TCP.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// The certificate that its client has shown.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.get()
    }

    /// Notes it, once.
    pub fn shows(&self, peer: Option<Peer>) {
        if let Some(peer) = peer {
            let _ = self.peer.set(Arc::new(peer));
        }
    }

    /// Requests that its client may have under way at one time over HTTP/2.
    #[must_use]
    pub fn streams_max(&self) -> usize {
        self.streams_max
    }

    /// Whether it is one too many: it hears that, and ends.
    #[must_use]
    pub fn is_surplus(&self) -> bool {
        self.place == Place::Surplus
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every step, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of a request is whole. How many are under way with it.
    pub fn request_begins(&self) -> usize {
        let mut state = self.state();
        state.requests += 1;
        state.requests
    }

    /// Ends it at once. What is under way goes on to its outcome.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// A request has been answered.
    pub fn request_ends(&self) {
        let mut state = self.state();
        state.requests = state.requests.saturating_sub(1);
        let patience = if self.is_surplus() { SURPLUS_KEPT } else { self.patience.idle + self.patience.head };
        state.due = Instant::now() + patience;
    }

    /// Resolves when the connection has taken too long to begin a request.
    pub async fn overdue(&self) {
        loop {
            let next = {
                let state = self.state();
                // A request under way has limits of its own; on a connection too many none is worked on.
                if state.requests > 0 && !self.is_surplus() {
                    Instant::now() + self.patience.head
                } else {
                    state.due
                }
            };
            if next <= Instant::now() {
                return;
            }
            // An answer brings the end of a connection too many nearer.
            let look = if self.is_surplus() { next.min(Instant::now() + SURPLUS_KEPT) } else { next };
            tokio::select! {
                () = tokio::time::sleep_until(look) => {}
                () = self.cut.notified() => return,
            }
        }
    }
}
