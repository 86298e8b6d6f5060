//! Open connections to one endpoint.
//!
//! Hyper's connections without hyper-util's pool: what was sent and what was not must be known for certain,
//! and no call may wait for a task to be started (docs/decisions/0018-upstreams.md).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};

use super::http2::{Room, STREAMS_MAX, Stream};

/// Idle HTTP/1.1 connections are dropped before common tool servers (5 s) drop them: a request that meets a
/// closing connection would have an unknown outcome.
const HTTP1_IDLE: Duration = Duration::from_secs(4);
/// A server that closes an idle HTTP/2 connection says so in a way that tells which requests it has seen.
const HTTP2_IDLE: Duration = Duration::from_secs(60);
/// More idle connections than this were a peak.
const IDLE_MAX: usize = 1_024;
pub(super) type Body = Full<Bytes>;

pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Shared>>,
    /// How many requests the last shared connection takes; the next one will take as many.
    room: AtomicUsize,
    /// Grows when connections of before are not to be used any more.
    generation: AtomicU64,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<Body>,
    room: Arc<Room>,
    used: Instant,
}

/// One request's place on a connection.
pub(super) enum Lease {
    /// All of an HTTP/1.1 connection.
    Whole { sender: http1::SendRequest<Body>, pool: Arc<Pool>, generation: u64 },
    /// A stream of an HTTP/2 connection.
    Stream { sender: http2::SendRequest<Body>, stream: Stream },
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            shared: Mutex::default(),
            room: AtomicUsize::new(STREAMS_MAX),
            generation: AtomicU64::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A connection that is open and free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Lease> {
        self.take_idle().or_else(|| self.take_shared())
    }

    fn take_idle(self: &Arc<Self>) -> Option<Lease> {
        let mut idle = lock(&self.idle);
        let generation = self.generation.load(Ordering::Relaxed);
        let mut busy = Vec::new();
        let found = loop {
            // The last one is the freshest.
            let Some(next) = idle.pop() else { break None };
            if next.sender.is_closed() || next.since.elapsed() > HTTP1_IDLE {
                continue;
            }
            if next.sender.is_ready() {
                break Some(Lease::Whole { sender: next.sender, pool: self.clone(), generation });
            }
            // Its last answer is read, and the connection has not noticed yet.
            busy.push(next);
        };
        idle.extend(busy);
        found
    }

    fn take_shared(&self) -> Option<Lease> {
        let mut shared = lock(&self.shared);
        shared.retain(|s| !s.sender.is_closed());
        let (free, stream) = shared.iter_mut().find_map(|s| s.room.place().map(|stream| (s, stream)))?;
        free.used = Instant::now();
        Some(Lease::Stream { sender: free.sender.clone(), stream })
    }

    /// A new connection's first request.
    pub(super) fn begin(self: &Arc<Self>, sender: http1::SendRequest<Body>, generation: u64) -> Lease {
        Lease::Whole { sender, pool: self.clone(), generation }
    }

    /// Likewise, of a connection that others may join at once; `None` when it takes no request after all.
    pub(super) fn share(
        &self,
        sender: http2::SendRequest<Body>,
        room: Arc<Room>,
        generation: u64,
    ) -> Option<Lease> {
        self.room.store(room.limit().max(1), Ordering::Relaxed);
        let mut shared = lock(&self.shared);
        let lease = Lease::Stream { sender: sender.clone(), stream: room.place()? };
        if generation == self.generation() {
            shared.push(Shared { sender, room, used: Instant::now() });
        }
        Some(lease)
    }

    /// How many requests a shared connection is likely to take.
    pub(super) fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    /// To be asked before a connection is opened.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// No connection of before is used for another request; those in use end with their requests.
    pub(super) fn renew(&self) {
        let (mut idle, mut shared) = (lock(&self.idle), lock(&self.shared));
        self.generation.fetch_add(1, Ordering::Relaxed);
        idle.clear();
        shared.clear();
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self) {
        lock(&self.idle).retain(|i| !i.sender.is_closed() && i.since.elapsed() <= HTTP1_IDLE);
        lock(&self.shared).retain(|s| {
            let in_use = !s.room.is_empty() || s.used.elapsed() <= HTTP2_IDLE;
            !s.sender.is_closed() && in_use
        });
    }

    fn put(&self, sender: http1::SendRequest<Body>, generation: u64) {
        let mut idle = lock(&self.idle);
        if generation == self.generation() && !sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

impl Lease {
    /// The answer has been read to its end.
    pub(super) fn give_back(self) {
        if let Self::Whole { sender, pool, generation } = self {
            pool.put(sender, generation);
        }
    }
}
