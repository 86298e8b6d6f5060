//! The durable local queue of audit events: an event counts only once it is in here.
//!
//! One writer numbers and chains the events, writes what has gathered as one batch, and only then answers. It is a
//! task where a write only hands over to the operating system, and a thread where it waits for a disk. Which calls are
//! open (held, or forwarded without an outcome) is read from the events, so that a restart knows which to close.
//!
//! [`writer`]: who writes. [`log`]: what is on the disk. [`recover`]: what a former process left. [`segment`], [`record`]: its files, and what
//! is in them. [`calls`]: what is open. [`files`]: whether all of it is still there. [`room`]: how much there may be.
//! [`doubt`]: that the backend has yet to confirm the chain.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use oakallow_policy::audit::{Chained, Event, Head};
use oakallow_policy::timestamp::parse_rfc3339;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Durability, Limits};
use doubt::Doubt;
pub use log::Kept;
use log::Log;
use room::Room;
use writer::Writer;

mod calls;
mod doubt;
mod files;
mod log;
#[cfg(test)]
mod model;
mod record;
mod recover;
mod room;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

/// Why an event was not stored. The caller refuses the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SpoolError {
    #[error("the audit spool is full: the backend has not taken its events for too long")]
    Full,
    #[error("the audit spool cannot be written: {0}")]
    Unwritable(String),
    #[error("the files of the audit spool were removed while the proxy runs")]
    Gone,
    #[error("the audit spool misses events of this proxy: calls wait until the backend takes what there is")]
    Unconfirmed,
    #[error("the backend refuses the audit events of this proxy: an operator has to enrol it anew")]
    Contradicted,
    #[error("the audit spool cannot be opened: {0}")]
    Open(String),
    #[error("the audit spool {} is in use by another proxy: each needs a `state_dir` of its own", .0.display())]
    InUse(PathBuf),
}

/// What the backend says of the chain that is kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Chain {
    /// Nothing against it.
    Good,
    /// It begins anew or is damaged though this proxy has run before, or the backend refused it before a restart: not good
    /// until the backend takes it.
    Unconfirmed,
    /// It contradicts the one that the backend has: an operator has to act.
    Contradicted,
}

struct Append {
    events: Vec<Event>,
    /// Whether an action follows, which a restart has to find here.
    before_action: bool,
    /// Not an event of the chain: kept as what opened its call, in case nothing closes it. Seldom there.
    opening: Option<Box<Event>>,
    done: Option<oneshot::Sender<Result<u64, SpoolError>>>,
}

/// Where the spool stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The last event written.
    pub head: Head,
    /// Everything up to here is at the backend.
    pub acknowledged: u64,
    /// Bytes of the events that are not.
    pub waiting_bytes: u64,
}

impl Standing {
    /// Events that the backend does not have yet.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.head.seq.saturating_sub(self.acknowledged)
    }
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    /// Bounded by the calls in flight: each waits for the answer to its append.
    queue: mpsc::UnboundedSender<Append>,
    standing: Arc<watch::Sender<Standing>>,
    log: Log,
    room: Room,
    failures: Arc<AtomicU64>,
    is_unreadable: Arc<AtomicBool>,
    chain: Arc<AtomicU8>,
    doubt: Doubt,
}

impl Spool {
    /// Opens the spool in `directory` and starts its writer; within a runtime of tokio. Events of calls that a
    /// former process left open are returned by [`Spool::open_calls`].
    pub fn open(
        directory: &Path,
        source: &str,
        durability: Durability,
        limits: &Limits,
    ) -> Result<Self, SpoolError> {
        let recover::Opened { log, standing, doubt } = recover::open(directory, durability)?;
        let chain = if doubt.is_marked() { Chain::Unconfirmed } else { Chain::Good };
        let standing = Arc::new(watch::Sender::new(standing));
        let (queue, incoming) = mpsc::unbounded_channel();
        let writer = Writer {
            log: log.clone(),
            source: source.to_owned(),
            standing: standing.clone(),
            failures: Arc::default(),
            owed: VecDeque::new(),
        };
        let failures = writer.failures.clone();
        match durability {
            Durability::Process => drop(tokio::spawn(writer.run(incoming))),
            Durability::Power => std::thread::Builder::new()
                .name("spool".to_owned())
                .spawn(move || writer.run_blocking(incoming))
                .map(drop)
                .map_err(|e| SpoolError::Open(e.to_string()))?,
        }
        Ok(Self {
            queue,
            standing,
            log,
            room: Room::new(limits),
            failures,
            is_unreadable: Arc::default(),
            chain: Arc::new(AtomicU8::new(chain as u8)),
            doubt,
        })
    }

    /// Stores events that come before an action: refused when the spool is full. Returns the number of
    /// the last of them once they are stored.
    pub async fn append(&self, events: Vec<Event>) -> Result<u64, SpoolError> {
        self.admit()?;
        self.send(Append { events, before_action: true, opening: None, done: None }).await
    }

    /// Whether an action may follow on what is written now.
    fn admit(&self) -> Result<(), SpoolError> {
        match self.chain() {
            Chain::Good => {}
            Chain::Unconfirmed => return Err(SpoolError::Unconfirmed),
            Chain::Contradicted => return Err(SpoolError::Contradicted),
        }
        if self.is_full() { Err(SpoolError::Full) } else { Ok(()) }
    }

    /// Whether as much waits for the backend as may wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room.is_used_up(&self.standing.borrow())
    }

    /// Changes how much may wait for the backend.
    pub fn set_limits(&self, limits: &Limits) {
        self.room.set(limits);
    }

    /// What the backend says of this chain.
    #[must_use]
    pub fn chain(&self) -> Chain {
        match self.chain.load(Ordering::Relaxed) {
            0 => Chain::Good,
            1 => Chain::Unconfirmed,
            _ => Chain::Contradicted,
        }
    }

    /// Sets what is known of this chain; whether that is new. What is said against it survives a restart: an error says
    /// that it would not yet, though no call runs here. May wait for the disk.
    pub fn set_chain(&self, chain: Chain) -> Result<bool, SpoolError> {
        let is_new = self.chain.swap(chain as u8, Ordering::Relaxed) != chain as u8;
        match self.doubt.mark(chain != Chain::Good) {
            // The next start asks the backend once more.
            Err(e) if chain == Chain::Good => {
                tracing::warn!(error = %e, "the mark of an unconfirmed audit chain stays on the disk");
                Ok(is_new)
            }
            marked => marked.map(|()| is_new).map_err(unwritable),
        }
    }

    /// As [`Spool::append`], with a note of what is about to be done at the backend: should this process
    /// end before the call does, the next one closes the call as opened by `opening`.
    pub async fn append_opening(&self, events: Vec<Event>, opening: Event) -> Result<u64, SpoolError> {
        self.admit()?;
        self.send(Append { events, before_action: true, opening: Some(Box::new(opening)), done: None }).await
    }

    /// Stores events of what has happened already: never refused for lack of room.
    pub async fn append_outcome(&self, event: Event) -> Result<u64, SpoolError> {
        self.send(Append { events: vec![event], before_action: false, opening: None, done: None }).await
    }

    /// As [`Spool::append_outcome`], from where one cannot wait (a destructor).
    pub fn append_later(&self, event: Event) {
        // The receiver lives as long as the writer, which ends after the last sender.
        let _ =
            self.queue.send(Append { events: vec![event], before_action: false, opening: None, done: None });
    }

    async fn send(&self, append: Append) -> Result<u64, SpoolError> {
        let (done, answer) = oneshot::channel();
        let gone = || SpoolError::Unwritable("its writer has stopped".to_owned());
        self.queue.send(Append { done: Some(done), ..append }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Where it stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// To be told of every change of [`Spool::standing`].
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Whether the last write failed, or the next one would, or what was written cannot be read.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
            || self.is_unreadable.load(Ordering::Relaxed)
            || !self.log.is_there()
    }

    /// Age in seconds of the oldest event that the backend does not have; 0 when it has all.
    #[must_use]
    pub fn oldest_age_s(&self, now_ms: u64) -> u64 {
        // What cannot be read is reported by `is_failing` and by the shipper.
        let oldest = self.unacknowledged(1, 0).ok().and_then(|events| events.into_iter().next());
        let oldest = oldest.and_then(|kept| serde_json::from_slice::<Chained>(&kept.bytes).ok());
        let written = oldest.and_then(|e| parse_rfc3339(&e.event.time));
        written.map_or(0, |at| now_ms.saturating_sub(at) / 1_000)
    }

    /// What the spool takes up on its disk, its journal included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Waits until the backend has everything up to `seq`.
    pub async fn acknowledged(&self, seq: u64) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.standing.subscribe().wait_for(|s| s.acknowledged >= seq).await;
    }

    /// The next events that the backend does not have, oldest first: at most so many, and so many bytes
    /// (one event may have more).
    pub fn unacknowledged(&self, most: usize, bytes_max: usize) -> Result<Vec<Kept>, SpoolError> {
        let after = self.standing.borrow().acknowledged;
        self.readable(self.log.read(after, most, bytes_max))
    }

    /// Forgets everything up to `seq`.
    pub fn acknowledge(&self, seq: u64) -> Result<(), SpoolError> {
        let from = self.standing.borrow().acknowledged;
        let seq = seq.min(self.standing.borrow().head.seq);
        if seq <= from {
            return Ok(());
        }
        let forgotten = self.readable(self.log.forget(seq))?;
        self.standing.send_modify(|s| {
            s.acknowledged = s.acknowledged.max(seq);
            s.waiting_bytes = s.waiting_bytes.saturating_sub(forgotten);
        });
        Ok(())
    }

    /// What cannot be read cannot be shipped, however long it is tried.
    fn readable<T>(&self, read: io::Result<T>) -> Result<T, SpoolError> {
        self.is_unreadable.store(read.is_err(), Ordering::Relaxed);
        read.map_err(unwritable)
    }

    /// Calls that a former process left open: their `txn`, and the event that opened them.
    pub fn open_calls(&self) -> Result<Vec<(String, Event)>, SpoolError> {
        self.log.open_calls().map_err(unwritable)
    }
}

fn unwritable(e: impl std::fmt::Display) -> SpoolError {
    SpoolError::Unwritable(e.to_string())
}
