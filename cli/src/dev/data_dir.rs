//! The directory that holds everything `oakallow dev` keeps.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// A data directory that this process alone uses. A temporary one is removed when dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    temporary: Option<TempDir>,
    _lock: File,
}

impl DataDir {
    /// Takes the given directory, or a fresh temporary one.
    pub(crate) fn take(given: Option<&Path>) -> anyhow::Result<Self> {
        let (path, temporary) = match given {
            Some(given) => (created(given)?, None),
            None => {
                let fresh = tempfile::Builder::new().prefix("oakallow-dev-").tempdir();
                let fresh = fresh.context("cannot make a temporary data directory")?;
                (fresh.path().to_owned(), Some(fresh))
            }
        };
        let lock = locked(&path)?;
        Ok(Self { path, temporary, _lock: lock })
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes away in the end.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }
}

fn created(given: &Path) -> anyhow::Result<PathBuf> {
    let failed = || format!("the data directory {} cannot be used", given.display());
    DirBuilder::new().recursive(true).mode(0o700).create(given).with_context(failed)?;
    fs::canonicalize(given).with_context(failed)
}

/// Two processes on one directory would take each other's keys and ports for their own.
fn locked(path: &Path) -> anyhow::Result<File> {
    let failed = || format!("the data directory {} cannot be used", path.display());
    let lock = File::create(path.join("dev.lock")).with_context(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("the data directory {} is in use by another `oakallow dev`", path.display())
        }
        Err(TryLockError::Error(e)) => Err(e).with_context(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_goes_away() {
        let data = DataDir::take(None).unwrap();
        let path = data.path().to_owned();
        assert!(path.is_dir() && data.is_temporary());
        drop(data);
        assert!(!path.exists());
    }

    #[test]
    fn a_given_directory_stays_and_has_one_user_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let given = parent.path().join("a/b");
        let first = DataDir::take(Some(&given)).unwrap();
        let second = DataDir::take(Some(&given)).err().unwrap().to_string();
        assert!(second.contains("in use by another"), "{second}");
        drop(first);
        drop(DataDir::take(Some(&given)).unwrap());
        assert!(given.is_dir());
    }

    #[test]
    fn a_file_in_its_place_is_a_clear_error() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = format!("{:#}", DataDir::take(Some(&file)).err().unwrap());
        assert!(error.contains("cannot be used"), "{error}");
    }
}
