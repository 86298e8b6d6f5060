//! The data directory: private where it is made, and served by one backend at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Held by the backend that serves the directory.
const LOCK_FILE: &str = "backend.lock";

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DataDirError {
    #[error("the data directory {}: {cause}", .at.display())]
    Unusable { at: PathBuf, cause: io::Error },
    #[error("the data directory {} is in use by another backend", .0.display())]
    InUse(PathBuf),
}

/// Makes the directory where it is missing, for its owner only. With `alone`, takes the lock by which only one
/// backend serves it: a second one would not hear of the first one's changes in time.
pub(crate) fn take(path: &Path, alone: bool) -> Result<Option<File>, DataDirError> {
    let at = |cause| DataDirError::Unusable { at: path.to_owned(), cause };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(at)?;
    warn_if_open(path).map_err(at)?;
    if !alone {
        return Ok(None);
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let lock = options.open(path.join(LOCK_FILE)).map_err(at)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(at(cause)),
    }
}

/// A directory that was there keeps its mode, which may be somebody's choice. Our files in it are private in
/// any case, but who can write here can replace them.
fn warn_if_open(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = path.metadata()?.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others can write to the data directory");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_directory_is_private_and_an_old_one_keeps_its_mode() {
        let parent = tempfile::tempdir().unwrap();
        let (new, old) = (parent.path().join("a/b"), parent.path().join("old"));
        take(&new, true).unwrap();
        assert_eq!(mode(&new), 0o700);
        std::fs::create_dir(&old).unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
        take(&old, true).unwrap();
        assert_eq!(mode(&old), 0o755);
    }

    #[test]
    fn one_backend_serves_it_while_local_administration_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let served = take(directory.path(), true).unwrap();
        assert!(matches!(take(directory.path(), true), Err(DataDirError::InUse(_))));
        assert!(take(directory.path(), false).unwrap().is_none());
        drop(served);
        assert!(take(directory.path(), true).is_ok());
    }

    #[test]
    fn an_error_names_the_directory() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = take(&file, true).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}
