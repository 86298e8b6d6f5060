//! That the chain is in doubt, kept where a restart finds it. What the doubt came from does not show a second time: the
//! damage is cut off, the lost events have others in their place, and the backend that refused may be away. Calls would
//! go on.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// An empty file of this name beside the segments.
pub(super) const MARK: &str = "unconfirmed";

/// Whether the mark is there. Cheap to clone.
#[derive(Clone)]
pub(super) struct Doubt(Arc<Kept>);

struct Kept {
    directory: PathBuf,
    /// Held over the change of the file: what it says is what is on the disk.
    is_marked: Mutex<bool>,
}

impl Doubt {
    /// As a former process left it.
    pub(super) fn find(directory: &Path) -> io::Result<Self> {
        let is_marked = Mutex::new(directory.join(MARK).try_exists()?);
        Ok(Self(Arc::new(Kept { directory: directory.to_owned(), is_marked })))
    }

    pub(super) fn is_marked(&self) -> bool {
        *self.0.is_marked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the mark, or takes it away. After an error, as after a loss of power, it is there too often rather than not
    /// at all; the next call tries again.
    pub(super) fn mark(&self, in_doubt: bool) -> io::Result<()> {
        let mut is_marked = self.0.is_marked.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_marked == in_doubt {
            return Ok(());
        }
        let path = self.0.directory.join(MARK);
        if in_doubt {
            File::create(path)?.sync_all()?;
            File::open(&self.0.directory)?.sync_all()?;
        } else if let Err(e) = std::fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(e);
        }
        *is_marked = in_doubt;
        Ok(())
    }
}
