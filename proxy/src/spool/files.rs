//! Whether the spool's files are still where they were opened. Writing to a file that was removed succeeds,
//! and the next start finds nothing of it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::segment::{self, Segment};
use crate::clock;

/// Held open while the spool is, so that no other file gets its number.
pub(super) const LOCK: &str = "lock";

/// A directory that was changed longer ago than this, before it was looked through, has not been changed since if its
/// time is the same: file systems keep it in steps of some milliseconds, the coarsest of two seconds.
const SETTLED_S: u64 = 3;

#[derive(Clone)]
pub(super) struct Files {
    directory: PathBuf,
    lock: Option<(u64, u64)>,
    /// The directory as it was when the files were found in it.
    looked_through: Arc<Mutex<Option<State>>>,
}

/// Which directory it is, and when it was last changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    identity: (u64, u64),
    /// Seconds since 1970, and nanoseconds.
    changed: (i64, i64),
}

impl Files {
    pub(super) fn of(directory: &Path) -> Self {
        let lock = identity(&directory.join(LOCK));
        Self { directory: directory.to_owned(), lock, looked_through: Arc::default() }
    }

    /// Asked once a batch, with the file that it goes to: one look at the directory as long as nothing was made in it or
    /// taken out.
    pub(super) fn are_there(&self, current: &Segment) -> bool {
        let Some(state) = state(&self.directory) else { return false };
        let Ok(mut looked_through) = self.looked_through.lock() else { return self.are_in_it(current) };
        if *looked_through == Some(state) {
            return true;
        }
        let found = self.are_in_it(current);
        let changed_s = u64::try_from(state.changed.0).unwrap_or(u64::MAX);
        let settled = (clock::now_ms() / 1_000).checked_sub(changed_s).is_some_and(|age_s| age_s > SETTLED_S);
        *looked_through = (found && settled).then_some(state);
        found
    }

    fn are_in_it(&self, current: &Segment) -> bool {
        let written = current.file.metadata().ok().map(|m| (m.dev(), m.ino()));
        self.lock.is_some()
            && identity(&self.directory.join(LOCK)) == self.lock
            && written.is_some()
            && identity(&segment::path(&self.directory, current.number)) == written
    }
}

fn state(directory: &Path) -> Option<State> {
    let found = std::fs::metadata(directory).ok()?;
    Some(State { identity: (found.dev(), found.ino()), changed: (found.mtime(), found.mtime_nsec()) })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}
