//! Whether the spool's files are still where they were opened. Writing to a file that was removed succeeds,
//! and the next start finds nothing of it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Held open while the spool is, so that no other file gets its number.
const LOCK: &str = "lock";
const JOURNAL: &str = "jnl";

#[derive(Clone)]
pub(super) struct Files {
    directory: PathBuf,
    lock: Option<(u64, u64)>,
}

impl Files {
    pub(super) fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), lock: identity(&directory.join(LOCK)) }
    }

    /// Some microseconds: asked once a batch.
    pub(super) fn are_there(&self) -> bool {
        self.lock.is_some() && identity(&self.directory.join(LOCK)) == self.lock && self.has_journal()
    }

    fn has_journal(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return false };
        entries.flatten().any(|e| e.path().extension().is_some_and(|x| x == JOURNAL))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}
