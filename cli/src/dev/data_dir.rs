//! The directory that holds everything `oakallow dev` keeps.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::data_dir::{IN_DEV, is_a_backends, make, named};

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

    /// The part of it that is the backend's data directory.
    pub(crate) fn backend(&self) -> PathBuf {
        self.path.join(IN_DEV)
    }

    /// Whether it goes away in the end.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }
}

fn created(given: &Path) -> anyhow::Result<PathBuf> {
    if is_a_backends(given)? {
        let dir = given.display();
        let part_of =
            given.parent().filter(|parent| given.ends_with(IN_DEV) && parent.join("dev.env").exists());
        match part_of.map(Path::display) {
            Some(parent) => bail!("{dir} is the backend's part of {parent}: give `--data-dir {parent}`"),
            None => bail!(
                "{dir} is the data directory of a backend; `oakallow dev` needs one of its own, which has a \
                 backend's inside: give another, or serve this one with `oakallow backend --data-dir {dir}`"
            ),
        }
    }
    make(given)?;
    fs::canonicalize(given).with_context(|| named(given))
}

/// Two processes on one directory would take each other's keys and ports for their own.
fn locked(path: &Path) -> anyhow::Result<File> {
    let failed = || named(path);
    let lock = File::create(path.join("dev.lock")).with_context(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another `oakallow dev`", named(path))
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
        for given in [file.join("below"), file] {
            let error = format!("{:#}", DataDir::take(Some(&given)).err().unwrap());
            assert!(error.starts_with(&format!("the data directory {}: ", given.display())), "{error}");
        }
    }

    #[test]
    fn a_backends_directory_is_left_as_it_is() {
        let backends = tempfile::tempdir().unwrap();
        fs::write(backends.path().join("oakallow.db"), "").unwrap();
        let error = DataDir::take(Some(backends.path())).err().unwrap().to_string();
        assert!(error.contains("is the data directory of a backend"), "{error}");
        assert_eq!(fs::read_dir(backends.path()).unwrap().count(), 1);
    }

    #[test]
    fn for_the_backends_part_of_a_demo_the_whole_is_named() {
        let demo = tempfile::tempdir().unwrap();
        let part = demo.path().join(IN_DEV);
        make(&part).unwrap();
        fs::write(part.join("oakallow.db"), "").unwrap();
        fs::write(demo.path().join("dev.env"), "").unwrap();
        let error = DataDir::take(Some(&part)).err().unwrap().to_string();
        assert!(error.ends_with(&format!(": give `--data-dir {}`", demo.path().display())), "{error}");
        drop(DataDir::take(Some(demo.path())).unwrap());
    }
}
