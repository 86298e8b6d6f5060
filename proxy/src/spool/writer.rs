//! The one that writes: a task where a write only hands over to the operating system, a thread where it waits for a disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oakallow_policy::audit::{Chained, Event, Head};
use oakallow_policy::life::{Tracked, tracked};
use tokio::sync::{mpsc, watch};

use super::log::{Batch, Log};
use super::{Append, SpoolError, Standing, unwritable};

/// Most appends in one batch: bounds how long the first of them waits.
const BATCH_MAX: usize = 512;

/// Numbers, chains and writes what comes.
pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) source: String,
    pub(super) standing: Arc<watch::Sender<Standing>>,
    pub(super) failures: Arc<AtomicU64>,
    /// What has happened and could not be written yet: at most one for each call that was under way.
    pub(super) owed: VecDeque<Event>,
}

impl Writer {
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Append>) {
        while let Some(first) = queue.recv().await {
            // Everything else that can run does so first: what it appends goes into the same batch. Nothing waits
            // when nothing else is to be done.
            tokio::task::yield_now().await;
            self.write(gathered(first, &mut queue));
        }
    }

    pub(super) fn run_blocking(mut self, mut queue: mpsc::UnboundedReceiver<Append>) {
        while let Some(first) = queue.blocking_recv() {
            self.write(gathered(first, &mut queue));
        }
    }

    fn write(&mut self, mut appends: Vec<Append>) {
        if !self.log.is_there() {
            tracing::error!("the files of the audit spool are gone: calls are refused");
            // What has happened is still told to the backend, if it can be before this process ends.
            for refused in appends.extract_if(.., |a| a.before_action) {
                refused.done.map(|done| done.send(Err(SpoolError::Gone)));
            }
        }
        if appends.is_empty() {
            return;
        }
        let written = self.write_batch(&mut appends);
        match &written {
            Ok(_) => self.failures.store(0, Ordering::Relaxed),
            Err(e) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(error = %e, "audit events could not be stored");
            }
        }
        for done in appends.into_iter().filter_map(|a| a.done) {
            // The caller may have gone; its events are stored all the same.
            let _ = done.send(written.clone());
        }
    }

    fn write_batch(&mut self, appends: &mut [Append]) -> Result<u64, SpoolError> {
        let mut happened = std::mem::take(&mut self.owed);
        let before = self.standing.borrow().head.clone();
        let (mut head, mut batch) = (before.clone(), Batch::default());
        let late = happened.len();
        for n in 0..late {
            let Some(event) = happened.get(n) else { break };
            head = self.put(&mut batch, &head, event.clone())?.1;
        }
        for append in appends.iter_mut() {
            for event in append.events.drain(..) {
                let (event, next) = self.put(&mut batch, &head, event)?;
                head = next;
                if !append.before_action {
                    happened.push_back(event);
                }
            }
        }
        // After the events: what the call did before is not what leaves it open now.
        for event in appends.iter_mut().filter_map(|a| a.opening.take()) {
            if let Some(txn) = &event.txn {
                batch.opening(txn, &serde_json::to_vec(&event).map_err(unwritable)?);
            }
        }
        let written_bytes = batch.event_bytes();
        if let Err(e) = self.log.append(batch, &before, &head) {
            // Written with the next batch that can be, before anything else.
            self.owed = happened;
            return Err(unwritable(e));
        }
        let seq = head.seq;
        self.standing.send_modify(|s| {
            s.head = head;
            s.waiting_bytes += written_bytes;
        });
        Ok(seq)
    }

    /// Puts an event at the end of the chain; the event, and the new head.
    fn put(&self, batch: &mut Batch, head: &Head, event: Event) -> Result<(Event, Head), SpoolError> {
        let (chained, bytes, next) = Chained::append(&self.source, head, event).map_err(unwritable)?;
        batch.event(chained.seq, &bytes);
        if let Some(txn) = &chained.event.txn {
            match tracked(chained.event.kind) {
                Tracked::Opens => batch.opens(txn, bytes.len()),
                Tracked::Closes => batch.closes(txn),
                Tracked::Passes => {}
            }
        }
        Ok((chained.event, next))
    }
}

/// What waits, up to a batch.
fn gathered(first: Append, queue: &mut mpsc::UnboundedReceiver<Append>) -> Vec<Append> {
    let mut appends = vec![first];
    while appends.len() < BATCH_MAX
        && let Ok(append) = queue.try_recv()
    {
        appends.push(append);
    }
    appends
}
