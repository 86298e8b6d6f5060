//! The log as a former process left it.
//!
//! A segment ends at the first record that is not whole: a write that was cut off by a loss of power, or a disk that has
//! lost something. What stands behind is set aside, not removed, and the log goes on with the next segment: what is
//! missing in between the backend may have. Whether it has is for the backend to say, before any call runs.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use oakallow_policy::audit::{EventType, Head};
use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::life::{Tracked, tracked};
use serde::Deserialize;

use super::calls::{Change, OpenCalls, Place};
use super::doubt::Doubt;
use super::files::{Files, LOCK};
use super::log::{Cursor, Log, Shape, State, begin};
use super::record::{Kind, Record};
use super::segment::{self, Segment};
use super::{SpoolError, Standing};
use crate::config::Durability;

/// Files of what could not be read end in a number and this.
const ASIDE: &str = "damaged";

/// Room is given back in pieces of this size, as soon as the backend has all that is in one.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Opens the log, or begins one.
pub(super) fn open(directory: &Path, durability: Durability) -> Result<Opened, SpoolError> {
    open_as(directory, Shape { sync: durability == Durability::Power, segment_bytes: SEGMENT_BYTES })
}

/// A log, and how it was found.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) standing: Standing,
    /// Marked where something that was written is not there any more, now or at a former start.
    pub(super) doubt: Doubt,
}

pub(super) fn open_as(directory: &Path, shape: Shape) -> Result<Opened, SpoolError> {
    let fail = |e: io::Error| SpoolError::Open(e.to_string());
    std::fs::create_dir_all(directory).map_err(fail)?;
    let lock = File::create(directory.join(LOCK)).map_err(fail)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(directory.to_owned())),
        Err(TryLockError::Error(e)) => return Err(fail(e)),
    }
    let doubt = Doubt::find(directory).map_err(fail)?;
    let mut replay = Replay::default();
    replay.all(directory, &doubt).map_err(fail)?;
    // What the backend has already is missed by nobody.
    if replay.missing > Some(replay.acknowledged) {
        doubt.mark(true).map_err(fail)?;
    }
    let (state, standing) = replay.done(directory, shape.sync).map_err(fail)?;
    let log = Log::new(directory, (Files::of(directory), lock), shape, state);
    Ok(Opened { log, standing, doubt })
}

/// What has been read so far.
#[derive(Default)]
struct Replay {
    segments: VecDeque<Segment>,
    open: OpenCalls,
    head: Option<Head>,
    /// The last event after `head`, which is not hashed before it is known to be the last.
    last: Option<Bytes>,
    acknowledged: u64,
    /// Each event after that, and its bytes.
    waiting: VecDeque<(u64, u64)>,
    /// A number that no segment has had.
    next: u64,
    /// The last event that is in none of the segments.
    missing: Option<u64>,
}

/// Of an event, what is needed of all of them.
#[derive(Deserialize)]
struct Brief {
    /// One that only a later version knows opens and closes nothing here.
    #[serde(rename = "type")]
    kind: String,
    txn: Option<String>,
}

impl Brief {
    fn tracked(&self) -> Tracked {
        let known = EventType::ALL.iter().find(|kind| kind.as_str() == self.kind);
        known.map_or(Tracked::Passes, |kind| tracked(*kind))
    }
}

impl Replay {
    fn all(&mut self, directory: &Path, doubt: &Doubt) -> io::Result<()> {
        self.next = 1;
        for number in segment::numbers(directory)? {
            self.next = number + 1;
            self.segment(directory, number, doubt)?;
        }
        Ok(())
    }

    /// Reads a segment, as far as it is whole.
    fn segment(&mut self, directory: &Path, number: u64, doubt: &Doubt) -> io::Result<()> {
        let mut segment = Segment::open(directory, number)?;
        let written = segment.file.metadata()?.len();
        segment.bytes = written;
        // One that was only just made: nothing says where it belongs, and nothing has to.
        if written == 0 {
            return std::fs::remove_file(segment::path(directory, number));
        }
        if let Err((at, e)) = self.records(&segment) {
            if e.kind() != io::ErrorKind::InvalidData {
                return Err(e);
            }
            tracing::error!(
                segment = number, byte = at, bytes = written - at, error = %e,
                "the audit spool has a record that is not whole: what stands behind it is set aside"
            );
            segment.bytes = at;
            // Before it is cut off: the next start finds nothing wrong.
            doubt.mark(true)?;
            keep_aside(directory, &segment, written)?;
            if at == 0 {
                return std::fs::remove_file(segment::path(directory, number));
            }
            segment.cut()?;
        }
        segment.last = self.seq();
        self.segments.push_back(segment);
        Ok(())
    }

    fn records(&mut self, segment: &Segment) -> Result<(), (u64, io::Error)> {
        let mut records = segment.records(0);
        loop {
            let at = records.at;
            let Some((_, record)) = records.next().map_err(|e| (at, e))? else { return Ok(()) };
            let place = Place { number: segment.number, at, bytes: records.at - at };
            self.record(place, record).map_err(|e| (at, e))?;
        }
    }

    fn seq(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.seq)
    }

    fn record(&mut self, place: Place, record: Record) -> io::Result<()> {
        // Its checksum is right: it was written like this, by whomever.
        let unread = |e: serde_json::Error| io::Error::other(e);
        let misplaced = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        match record.kind {
            Kind::Head => {
                let begins: Head = serde_json::from_slice(&record.text).map_err(unread)?;
                let ended = self.ended();
                if let Some(ended) = ended.filter(|ended| *ended != begins) {
                    if begins.seq <= ended.seq {
                        return Err(misplaced("a segment that does not belong here"));
                    }
                    self.missing = Some(begins.seq);
                    tracing::error!(
                        after = ended.seq,
                        before = begins.seq + 1,
                        "the audit spool misses events"
                    );
                }
                if self.head.is_none() {
                    self.acknowledged = begins.seq;
                }
                self.last = None;
                self.head = Some(begins);
            }
            Kind::Event => {
                let brief: Brief = serde_json::from_slice(&record.text).map_err(unread)?;
                let head = self.head.as_mut().ok_or_else(|| misplaced("a segment without a head"))?;
                head.seq += 1;
                self.waiting.push_back((head.seq, record.text.len() as u64));
                self.last = Some(record.text);
                match (brief.tracked(), brief.txn) {
                    (Tracked::Opens, Some(txn)) => self.open.apply(Change::Opens(txn, place)),
                    (Tracked::Closes, Some(txn)) => self.open.apply(Change::Closes(txn)),
                    _ => {}
                }
            }
            Kind::Opening => {
                let brief: Brief = serde_json::from_slice(&record.text).map_err(unread)?;
                brief.txn.into_iter().for_each(|txn| self.open.apply(Change::Opens(txn, place)));
            }
            Kind::Acknowledged => {
                let to = record.text.as_ref().try_into().map_or(0, u64::from_le_bytes).min(self.seq());
                while self.waiting.front().is_some_and(|(seq, _)| *seq <= to) {
                    self.waiting.pop_front();
                }
                self.acknowledged = self.acknowledged.max(to);
            }
        }
        Ok(())
    }

    /// Where the chain stands now.
    fn ended(&self) -> Option<Head> {
        let mut head = self.head.clone()?;
        if let Some(last) = &self.last {
            head.hash = hex(&sha256(last));
        }
        Some(head)
    }

    fn done(mut self, directory: &Path, sync: bool) -> io::Result<(State, Standing)> {
        let head = self.ended().unwrap_or_default();
        if self.segments.is_empty() {
            self.segments.push_back(begin(directory, self.next, &head, sync)?);
        }
        let waiting_bytes = self.waiting.iter().map(|(_, bytes)| bytes).sum();
        let standing = Standing { head, acknowledged: self.acknowledged, waiting_bytes };
        let state = State {
            segments: self.segments,
            open: self.open,
            acknowledged: self.acknowledged,
            told: self.acknowledged,
            cursor: Cursor::default(),
            is_torn: false,
            #[cfg(test)]
            fails_next: false,
        };
        Ok((state, standing))
    }
}

/// Keeps what stands behind the last whole record in a file of its own, on the disk before it is cut off.
fn keep_aside(directory: &Path, segment: &Segment, written: u64) -> io::Result<()> {
    let mut rest = vec![0; usize::try_from(written - segment.bytes).unwrap_or_default()];
    segment.file.read_exact_at(&mut rest, segment.bytes)?;
    let path = segment::path(directory, segment.number);
    // Numbers come again after a loss: what was kept before stays.
    let mut names = (0..).map(|n: u32| path.with_extension(format!("{n}.{ASIDE}")));
    let mut file = loop {
        let Some(name) = names.next() else { return Err(io::ErrorKind::AlreadyExists.into()) };
        match File::create_new(name) {
            Ok(file) => break file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    };
    file.write_all(&rest)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}
