//! The spool on disk: the events, the list of open calls, and where it stands.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};
use oakallow_policy::audit::{Chained, Event, Head};

use super::files::Files;
use super::{SpoolError, Standing};
use crate::config::Durability;

pub(super) const HEAD: &[u8] = b"head";
const ACKNOWLEDGED: &[u8] = b"acknowledged";

/// What is written stays in memory until a keyspace has this much of it: a queue that is emptied from the front is
/// hardly ever read from disk, so small is as quick, and a sidecar is to be small. fjall's default of 64 MiB took
/// 240 MB in all.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// The least that fjall accepts.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// An event of the chain, as it is kept.
pub struct Kept {
    /// Its number.
    pub seq: u64,
    /// Its canonical form.
    pub bytes: Slice,
}

#[derive(Clone)]
pub(super) struct Store {
    pub(super) db: Database,
    pub(super) events: Keyspace,
    pub(super) open: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) persist: PersistMode,
    pub(super) files: Files,
}

impl Store {
    pub(super) fn open(directory: &Path, durability: Durability) -> Result<Self, SpoolError> {
        let fail = |e: fjall::Error| match e {
            fjall::Error::Locked => SpoolError::InUse(directory.to_owned()),
            other => SpoolError::Open(other.to_string()),
        };
        let builder = Database::builder(directory).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL_BYTES);
        let db = builder.open().map_err(fail)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = |name| db.keyspace(name, options).map_err(fail);
        Ok(Self {
            events: keyspace("events")?,
            open: keyspace("open")?,
            meta: keyspace("meta")?,
            persist: match durability {
                Durability::Process => PersistMode::Buffer,
                Durability::Power => PersistMode::SyncData,
            },
            files: Files::of(directory),
            db,
        })
    }

    pub(super) fn standing(&self) -> Result<Standing, SpoolError> {
        let head = self.meta.get(HEAD).map_err(unwritable)?;
        let head = match head {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(unwritable)?,
            None => Head::default(),
        };
        let acknowledged = self.meta.get(ACKNOWLEDGED).map_err(unwritable)?;
        let acknowledged =
            acknowledged.and_then(|b| b.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
        Ok(Standing { head, acknowledged, waiting_bytes: self.bytes(acknowledged, u64::MAX)? })
    }

    /// Events as they are kept, in canonical form.
    pub(super) fn read(&self, after: u64, most: usize, bytes_max: usize) -> Result<Vec<Kept>, SpoolError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for entry in self.events.range((after + 1).to_be_bytes()..).take(most) {
            let (key, value) = entry.into_inner().map_err(unwritable)?;
            bytes += value.len();
            if bytes > bytes_max && !events.is_empty() {
                break;
            }
            let seq = u64::from_be_bytes(key.as_ref().try_into().map_err(unwritable)?);
            events.push(Kept { seq, bytes: value });
        }
        Ok(events)
    }

    /// Bytes of the events after `after`, up to `to`.
    fn bytes(&self, after: u64, to: u64) -> Result<u64, SpoolError> {
        let range = (after + 1).to_be_bytes()..=to.to_be_bytes();
        self.events.range(range).map(|e| e.size().map(u64::from).map_err(unwritable)).sum()
    }

    /// Forgets the events after `from`, up to `to`; how many bytes they had.
    pub(super) fn forget(&self, from: u64, to: u64) -> Result<u64, SpoolError> {
        let bytes = self.bytes(from, to)?;
        let mut batch = self.db.batch();
        for seq in from + 1..=to {
            batch.remove(&self.events, seq.to_be_bytes());
        }
        batch.insert(&self.meta, ACKNOWLEDGED, to.to_be_bytes());
        batch.commit().map_err(unwritable)?;
        Ok(bytes)
    }

    pub(super) fn open_calls(&self) -> Result<Vec<(String, Event)>, SpoolError> {
        self.open
            .iter()
            .map(|entry| {
                let (key, value) = entry.into_inner().map_err(unwritable)?;
                // What opened a call is an event of the chain, or was about to become one.
                let event = match serde_json::from_slice::<Chained>(&value) {
                    Ok(chained) => chained.event,
                    Err(_) => serde_json::from_slice(&value).map_err(unwritable)?,
                };
                Ok((String::from_utf8_lossy(&key).into_owned(), event))
            })
            .collect()
    }
}

pub(super) fn unwritable(e: impl std::fmt::Display) -> SpoolError {
    SpoolError::Unwritable(e.to_string())
}
