//! The spool on disk: a log in segments, appended at the end and removed from the front
//! (docs/decisions/0023-spool-log.md).
//!
//! Only the writer of the spool appends. What can be asked meanwhile is behind a lock that is never held over a write.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use oakallow_policy::audit::{Chained, Event, Head};

use super::calls::{Change, OpenCalls, Place};
use super::files::Files;
use super::record::{self, HEADER_BYTES, Kind};
use super::segment::{self, Records, Segment};

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Whether a batch counts only when it is on the disk.
    pub(super) sync: bool,
    /// From this size on the next batch goes to a new segment.
    pub(super) segment_bytes: u64,
}

/// An event of the chain, as it is kept.
pub struct Kept {
    /// Its number.
    pub seq: u64,
    /// Its canonical form.
    pub bytes: Bytes,
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Log(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    files: Files,
    shape: Shape,
    state: Mutex<State>,
    /// Held for as long as this is.
    _lock: File,
}

pub(super) struct State {
    /// Never empty; the last one is written to.
    pub(super) segments: VecDeque<Segment>,
    pub(super) open: OpenCalls,
    /// Up to where the backend has everything.
    pub(super) acknowledged: u64,
    /// The same, as it stands in the log: with the next batch is early enough, what is sent twice counts once.
    pub(super) told: u64,
    /// Where the first event stands that it does not have.
    pub(super) cursor: Cursor,
    /// A write has failed, and what it has left stands behind the last record.
    pub(super) is_torn: bool,
    #[cfg(test)]
    pub(super) fails_next: bool,
}

impl State {
    fn untold(&mut self) -> Option<u64> {
        let before = std::mem::replace(&mut self.told, self.acknowledged);
        (before < self.acknowledged).then_some(self.acknowledged)
    }
}

/// A place between two records.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    pub(super) number: u64,
    pub(super) at: u64,
    /// The last event before it.
    pub(super) seq: u64,
}

/// What is written at once.
#[derive(Default)]
pub(super) struct Batch {
    records: Vec<u8>,
    changes: Vec<Change>,
    last: Option<u64>,
    event_bytes: u64,
}

impl Batch {
    /// An event of the chain, in canonical form.
    pub(super) fn event(&mut self, seq: u64, text: &[u8]) {
        record::put(&mut self.records, Kind::Event, text);
        self.last = Some(seq);
        self.event_bytes += text.len() as u64;
    }

    /// What opened a call and is no event of the chain, or stands where it will not stay.
    pub(super) fn opening(&mut self, txn: &str, text: &[u8]) {
        record::put(&mut self.records, Kind::Opening, text);
        self.opens(txn, text.len());
    }

    /// The record before this, whose text has so many bytes, opens a call.
    pub(super) fn opens(&mut self, txn: &str, text_bytes: usize) {
        let bytes = (HEADER_BYTES + text_bytes) as u64;
        // In the batch for now.
        let place = Place { number: 0, at: self.records.len() as u64 - bytes, bytes };
        self.changes.push(Change::Opens(txn.to_owned(), place));
    }

    pub(super) fn closes(&mut self, txn: &str) {
        self.changes.push(Change::Closes(txn.to_owned()));
    }

    /// Of the events in it.
    pub(super) fn event_bytes(&self) -> u64 {
        self.event_bytes
    }
}

impl Log {
    pub(super) fn new(directory: &Path, (files, lock): (Files, File), shape: Shape, state: State) -> Self {
        let directory = directory.to_owned();
        Self(Arc::new(Inner { directory, files, shape, state: Mutex::new(state), _lock: lock }))
    }

    /// Whether what is written now will be found by the next process.
    pub(super) fn is_there(&self) -> bool {
        let current = self.state().segments.back().cloned();
        current.is_some_and(|segment| self.0.files.are_there(&segment))
    }

    /// Appends a batch that goes on from `before` and ends at `after`.
    pub(super) fn append(&self, mut batch: Batch, before: &Head, after: &Head) -> io::Result<()> {
        let acknowledged = self.state().untold();
        if let Some(seq) = acknowledged {
            record::put(&mut batch.records, Kind::Acknowledged, &seq.to_le_bytes());
        }
        // First: a disk that the spool has filled has no room for the batch before.
        self.clean(before);
        self.write(batch, before)?;
        self.clean(after);
        Ok(())
    }

    fn write(&self, batch: Batch, head: &Head) -> io::Result<()> {
        self.mend()?;
        let mut segment = self.current(head)?;
        let begin = segment.bytes;
        let appended = segment.append(&batch.records, self.0.shape.sync);
        #[cfg(test)]
        let appended = appended.and_then(|()| self.fails());
        if let Err(e) = appended {
            self.state().is_torn = true;
            // Where this fails, the next write tries again.
            let _ = self.mend();
            return Err(e);
        }
        segment.last = batch.last.unwrap_or(segment.last);
        let number = segment.number;
        let mut state = self.state();
        if let Some(current) = state.segments.back_mut() {
            *current = segment;
        }
        for change in batch.changes {
            state.open.apply(match change {
                Change::Opens(txn, place) => {
                    Change::Opens(txn, Place { number, at: begin + place.at, ..place })
                }
                closes @ Change::Closes(_) => closes,
            });
        }
        Ok(())
    }

    /// Cuts off what a failed write has left.
    fn mend(&self) -> io::Result<()> {
        let current = {
            let state = self.state();
            state.segments.back().filter(|_| state.is_torn).cloned()
        };
        if let Some(segment) = current {
            segment.cut()?;
            self.state().is_torn = false;
        }
        Ok(())
    }

    /// The segment that is written to; a new one when the last is large enough.
    fn current(&self, head: &Head) -> io::Result<Segment> {
        let last = self.state().segments.back().cloned();
        let mut number = match last {
            Some(segment) if segment.bytes < self.0.shape.segment_bytes => return Ok(segment),
            Some(segment) => segment.number + 1,
            None => 1,
        };
        // One that could not be begun may be in the way.
        while segment::path(&self.0.directory, number).exists() {
            number += 1;
        }
        let segment = begin(&self.0.directory, number, head, self.0.shape.sync)?;
        self.state().segments.push_back(segment.clone());
        Ok(segment)
    }

    /// Removes segments from the front of which the backend has every event.
    fn clean(&self, head: &Head) {
        if let Err(e) = self.remove_front(head) {
            tracing::warn!(error = %e, "a part of the audit spool that is not needed any more stays on the disk");
        }
    }

    /// What opened calls that are still open is written anew before; only when that is the smaller part, or the log
    /// would be written again and again.
    fn remove_front(&self, head: &Head) -> io::Result<()> {
        while let Some((front, open)) = self.removable() {
            let mut batch = Batch::default();
            for (txn, place) in open {
                match text_at(&front, place) {
                    Ok(text) => batch.opening(&txn, &text),
                    Err(e) => {
                        tracing::error!(error = %e, txn, "what opened a call cannot be read: a restart will not close it");
                        batch.closes(&txn);
                    }
                }
            }
            if !batch.changes.is_empty() {
                self.write(batch, head)?;
            }
            match std::fs::remove_file(segment::path(&self.0.directory, front.number)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => self.state().segments.pop_front(),
            };
        }
        Ok(())
    }

    fn removable(&self) -> Option<(Segment, Vec<(String, Place)>)> {
        let state = self.state();
        let kept = state.segments.len().saturating_sub(1);
        let done = state.segments.iter().take(kept).take_while(|segment| segment.last <= state.acknowledged);
        let bytes: u64 = done.map(|segment| segment.bytes).sum();
        let front = state.segments.front().filter(|_| bytes > 2 * state.open.bytes())?;
        Some((front.clone(), state.open.up_to(front.number)))
    }

    /// Events after `after`: at most so many, and so many bytes (one may have more).
    pub(super) fn read(&self, after: u64, most: usize, bytes_max: usize) -> io::Result<Vec<Kept>> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut walk = self.walk(after);
        while events.len() < most
            && let Some((kept, _)) = walk.next()?
        {
            bytes += kept.bytes.len();
            if bytes > bytes_max && !events.is_empty() {
                break;
            }
            events.push(kept);
        }
        Ok(events)
    }

    /// The backend has everything up to `to`; how many bytes that were.
    pub(super) fn forget(&self, to: u64) -> io::Result<u64> {
        let mut reached = self.state().acknowledged;
        let (mut bytes, mut cursor) = (0, None);
        let mut walk = self.walk(reached);
        while reached < to
            && let Some((kept, behind)) = walk.next()?
        {
            bytes += kept.bytes.len() as u64;
            reached = kept.seq;
            cursor = Some(behind);
        }
        let mut state = self.state();
        state.acknowledged = state.acknowledged.max(to);
        state.cursor = cursor.unwrap_or(state.cursor);
        Ok(bytes)
    }

    fn walk(&self, after: u64) -> Walk {
        let state = self.state();
        let segments: VecDeque<Segment> = state.segments.iter().filter(|s| s.last > after).cloned().collect();
        let known = segments.front().filter(|s| s.number == state.cursor.number && state.cursor.seq <= after);
        let begin = known.map_or_else(Cursor::default, |_| state.cursor);
        Walk { segments, records: None, begin, seq: begin.seq, after }
    }

    /// The calls that nothing has closed, by their `txn`, and the event that opened each.
    pub(super) fn open_calls(&self) -> io::Result<Vec<(String, Event)>> {
        let state = self.state();
        let calls = state.open.up_to(u64::MAX).into_iter().map(|(txn, place)| {
            let segment = state.segments.iter().find(|segment| segment.number == place.number);
            let text = text_at(segment.ok_or(io::ErrorKind::NotFound)?, place)?;
            // What opened a call is an event of the chain, or was about to become one.
            let event = match serde_json::from_slice::<Chained>(&text) {
                Ok(chained) => chained.event,
                Err(_) => serde_json::from_slice(&text)?,
            };
            Ok((txn, event))
        });
        calls.collect()
    }

    /// What all of it takes up on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.state().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The next write fails when all of it is written.
    #[cfg(test)]
    pub(super) fn fail_next(&self) {
        self.state().fails_next = true;
    }

    #[cfg(test)]
    fn fails(&self) -> io::Result<()> {
        let fails = std::mem::take(&mut self.state().fails_next);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every step.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new segment that goes on after `head`.
pub(super) fn begin(directory: &Path, number: u64, head: &Head, sync: bool) -> io::Result<Segment> {
    let mut segment = Segment::create(directory, number, head.seq)?;
    let mut records = Vec::new();
    record::put(&mut records, Kind::Head, &serde_json::to_vec(head)?);
    // Its name is synced, too.
    let begun = segment.append(&records, sync).and_then(|()| match sync {
        true => File::open(directory)?.sync_all(),
        false => Ok(()),
    });
    if let Err(e) = begun {
        // Or the next try would find it in its way.
        let _ = std::fs::remove_file(segment::path(directory, number));
        return Err(e);
    }
    Ok(segment)
}

/// The text of a record.
fn text_at(segment: &Segment, place: Place) -> io::Result<Bytes> {
    let found = segment.records_within(place.at, place.at + place.bytes).next()?;
    found.map(|(_, record)| record.text).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Events one after the other, over all segments.
struct Walk {
    segments: VecDeque<Segment>,
    records: Option<(u64, Records)>,
    begin: Cursor,
    seq: u64,
    after: u64,
}

impl Walk {
    /// The next event, and the place behind it.
    fn next(&mut self) -> io::Result<Option<(Kept, Cursor)>> {
        loop {
            let Some((number, records)) = &mut self.records else {
                let Some(segment) = self.segments.pop_front() else { return Ok(None) };
                let from = if segment.number == self.begin.number { self.begin.at } else { 0 };
                self.records = Some((segment.number, segment.records(from)));
                continue;
            };
            let Some((_, record)) = records.next()? else {
                self.records = None;
                continue;
            };
            match record.kind {
                Kind::Head => self.seq = serde_json::from_slice::<Head>(&record.text)?.seq,
                Kind::Event => {
                    self.seq += 1;
                    if self.seq > self.after {
                        let behind = Cursor { number: *number, at: records.at, seq: self.seq };
                        return Ok(Some((Kept { seq: self.seq, bytes: record.text }, behind)));
                    }
                }
                Kind::Opening | Kind::Acknowledged => {}
            }
        }
    }
}
