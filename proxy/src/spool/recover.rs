//! The log as a former process left it.
//!
//! It ends at the first record that is not whole: a write that was cut off by a loss of power, or a disk that has lost
//! something. What stands behind is set aside, not removed; that events are missing shows in the chain.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use oakallow_policy::audit::{EventType, Head};
use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::life::{Tracked, tracked};
use serde::Deserialize;

use super::calls::{Change, OpenCalls, Place};
use super::files::{Files, LOCK};
use super::log::{Cursor, Log, Shape, State, begin};
use super::record::{Kind, Record};
use super::segment::{self, Segment};
use super::{SpoolError, Standing};
use crate::config::Durability;

/// Files of what could not be read.
const ASIDE: &str = "damaged";

/// Room is given back in pieces of this size, as soon as the backend has all that is in one.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Opens the log, or begins one.
pub(super) fn open(directory: &Path, durability: Durability) -> Result<(Log, Standing), SpoolError> {
    open_as(directory, Shape { sync: durability == Durability::Power, segment_bytes: SEGMENT_BYTES })
}

pub(super) fn open_as(directory: &Path, shape: Shape) -> Result<(Log, Standing), SpoolError> {
    let fail = |e: io::Error| SpoolError::Open(e.to_string());
    std::fs::create_dir_all(directory).map_err(fail)?;
    let lock = File::create(directory.join(LOCK)).map_err(fail)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(directory.to_owned())),
        Err(TryLockError::Error(e)) => return Err(fail(e)),
    }
    let mut replay = Replay::default();
    replay.all(directory).map_err(fail)?;
    let (state, standing) = replay.done(directory, shape.sync).map_err(fail)?;
    Ok((Log::new(directory, (Files::of(directory), lock), shape, state), standing))
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
    /// Bytes of each event after that.
    waiting: VecDeque<u64>,
    /// A number that no segment has had.
    next: u64,
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
    fn all(&mut self, directory: &Path) -> io::Result<()> {
        let mut numbers = segment::numbers(directory)?.into_iter();
        self.next = 1;
        for number in numbers.by_ref() {
            self.next = number + 1;
            if !self.segment(directory, number)? {
                break;
            }
        }
        // They went on from what is lost.
        for number in numbers {
            self.next = number + 1;
            set_aside(directory, number)?;
        }
        Ok(())
    }

    /// Reads a segment; whether it is whole.
    fn segment(&mut self, directory: &Path, number: u64) -> io::Result<bool> {
        let mut segment = Segment::open(directory, number)?;
        let written = segment.file.metadata()?.len();
        segment.bytes = written;
        let mut records = segment.records(0);
        let ended = loop {
            match records.next() {
                Ok(None) => break Ok(()),
                Ok(Some((at, record))) => {
                    if let Err(e) = self.record(Place { number, at, bytes: records.at - at }, record) {
                        break Err((at, e));
                    }
                }
                Err(e) => break Err((records.at, e)),
            }
        };
        segment.last = self.seq();
        if let Err((at, e)) = &ended {
            if !matches!(e.kind(), io::ErrorKind::InvalidData) {
                return Err(io::Error::new(e.kind(), e.to_string()));
            }
            tracing::error!(
                segment = number, byte = at, bytes = written - at, error = %e,
                "the audit spool ends in a record that is not whole: what stands behind it is set aside"
            );
            if *at == 0 {
                set_aside(directory, number)?;
                return Ok(false);
            }
            segment.bytes = *at;
            cut(directory, &segment, written)?;
        }
        // Without its head nothing says where it belongs.
        if written == 0 {
            std::fs::remove_file(segment::path(directory, number))?;
            return Ok(true);
        }
        self.segments.push_back(segment);
        Ok(ended.is_ok())
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
                match &self.head {
                    None => self.acknowledged = begins.seq,
                    Some(head) if head.seq == begins.seq => return Ok(()),
                    Some(_) => return Err(misplaced("events between two segments are missing")),
                }
                self.head = Some(begins);
            }
            Kind::Event => {
                let brief: Brief = serde_json::from_slice(&record.text).map_err(unread)?;
                let head = self.head.as_mut().ok_or_else(|| misplaced("a segment without a head"))?;
                head.seq += 1;
                self.waiting.push_back(record.text.len() as u64);
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
                let done = to.saturating_sub(self.acknowledged);
                self.waiting.drain(..usize::try_from(done).unwrap_or(usize::MAX).min(self.waiting.len()));
                self.acknowledged = self.acknowledged.max(to);
            }
        }
        Ok(())
    }

    fn done(mut self, directory: &Path, sync: bool) -> io::Result<(State, Standing)> {
        let mut head = self.head.take().unwrap_or_default();
        if let Some(last) = &self.last {
            head.hash = hex(&sha256(last));
        }
        if self.segments.is_empty() {
            self.segments.push_back(begin(directory, self.next, &head, sync)?);
        }
        let waiting_bytes = self.waiting.iter().sum();
        let standing = Standing { head, acknowledged: self.acknowledged, waiting_bytes };
        let state = State {
            segments: self.segments,
            open: self.open,
            acknowledged: self.acknowledged,
            told: self.acknowledged,
            cursor: Cursor::default(),
        };
        Ok((state, standing))
    }
}

/// Keeps what stands behind the last whole record in a file of its own, and cuts it off.
fn cut(directory: &Path, segment: &Segment, written: u64) -> io::Result<()> {
    let mut rest = vec![0; usize::try_from(written - segment.bytes).unwrap_or_default()];
    segment.file.read_exact_at(&mut rest, segment.bytes)?;
    std::fs::write(segment::path(directory, segment.number).with_extension(ASIDE), rest)?;
    segment.file.set_len(segment.bytes)?;
    segment.file.sync_all()
}

fn set_aside(directory: &Path, number: u64) -> io::Result<()> {
    let path = segment::path(directory, number);
    std::fs::rename(&path, path.with_extension(ASIDE))
}
