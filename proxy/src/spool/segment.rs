//! One file of the log: a head, and the records that follow it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;

use super::record::{self, Found, Record};

const SUFFIX: &str = "log";
/// Read at once; more for a record that is larger.
const CHUNK_BYTES: usize = 128 * 1024;

/// A file of the log. It can be read after it was removed.
#[derive(Clone)]
pub(super) struct Segment {
    /// Grows by one with each segment.
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    /// Of whole records; what a failed write left behind them counts for nothing.
    pub(super) bytes: u64,
    /// Number of the last event in it, or before it.
    pub(super) last: u64,
}

/// Where the file of this number is.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.{SUFFIX}"))
}

/// The numbers of the segments in a directory, in order.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        // Under its own name only, or it could not be opened.
        found.extend(number.filter(|number| path == self::path(directory, *number)));
    }
    found.sort_unstable();
    Ok(found)
}

impl Segment {
    /// A new one; there must be none of this number.
    pub(super) fn create(directory: &Path, number: u64, last: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(path(directory, number))?;
        Ok(Self { number, file: Arc::new(file), bytes: 0, last })
    }

    /// One that is there, its records not yet read.
    pub(super) fn open(directory: &Path, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path(directory, number))?;
        Ok(Self { number, file: Arc::new(file), bytes: 0, last: 0 })
    }

    /// Writes behind the last record. An error says that some of it may stand there: see [`Segment::cut`].
    pub(super) fn append(&mut self, records: &[u8], sync: bool) -> io::Result<()> {
        self.file.write_all_at(records, self.bytes)?;
        if sync {
            self.file.sync_data()?;
        }
        self.bytes += records.len() as u64;
        Ok(())
    }

    /// Cuts off what a failed write has left. Before that is done nothing may be written: records of the failed write
    /// could stand behind those of the next one.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.sync_data()
    }

    /// Its records from this offset on.
    pub(super) fn records(&self, from: u64) -> Records {
        self.records_within(from, self.bytes)
    }

    /// Its records from this offset to that one.
    pub(super) fn records_within(&self, from: u64, end: u64) -> Records {
        Records { file: self.file.clone(), at: from, end, ahead: BytesMut::new() }
    }
}

/// Records one after the other.
pub(super) struct Records {
    file: Arc<File>,
    /// Of the next record.
    pub(super) at: u64,
    end: u64,
    /// Read from the file, from `at` on.
    ahead: BytesMut,
}

impl Records {
    /// The next record with its offset. `Ok(None)` at the end; an error of kind `InvalidData` where a record should
    /// stand and does not.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Record)>> {
        let at = self.at;
        loop {
            let before = self.ahead.len();
            match record::take(&mut self.ahead) {
                Found::Whole(record) => {
                    self.at += (before - self.ahead.len()) as u64;
                    return Ok(Some((at, record)));
                }
                Found::Damaged => return Err(damaged(at)),
                Found::Unknown => {
                    return Err(io::Error::other(format!("a later version wrote the record at byte {at}")));
                }
                Found::Part(bytes) => {
                    let left = self.end.saturating_sub(at);
                    if left == 0 {
                        return Ok(None);
                    }
                    if bytes as u64 > left {
                        return Err(damaged(at));
                    }
                    self.fill(bytes)?;
                }
            }
        }
    }

    /// Reads until at least so many bytes are there.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        let known = self.ahead.len();
        let from = self.at + known as u64;
        let wanted = bytes.saturating_sub(known).max(CHUNK_BYTES);
        let there = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
        self.ahead.resize(known + wanted.min(there), 0);
        let room = self.ahead.get_mut(known..).unwrap_or_default();
        self.file.read_exact_at(room, from)
    }
}

fn damaged(at: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no record at byte {at}"))
}
