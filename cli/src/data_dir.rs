//! The data directory of a backend, as people name it: its own, or that of the `oakallow dev` around it.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The backend's database in its data directory.
const DATABASE: &str = "oakallow.db";
/// The backend's data directory in the directory of `oakallow dev`.
pub(crate) const IN_DEV: &str = "backend";

/// Whether a backend keeps its database right here.
pub(crate) fn is_a_backends(dir: &Path) -> anyhow::Result<bool> {
    match dir.join(DATABASE).symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| named(dir)),
    }
}

/// Where the database is: here, or in the part of an `oakallow dev` that is the backend's.
fn find(given: &Path) -> anyhow::Result<Option<PathBuf>> {
    for dir in [given.to_owned(), given.join(IN_DEV)] {
        if is_a_backends(&dir)? {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

/// The directory of the database that is there; an error when there is none, before anything makes one.
pub(crate) fn existing(given: &Path) -> anyhow::Result<PathBuf> {
    match find(given)? {
        Some(dir) => Ok(dir),
        None if given.is_dir() => bail!("no oakallow database in {}", given.display()),
        None => bail!("no oakallow database in {}: there is no such directory", given.display()),
    }
}

/// The directory of the database that is there, or else the one given, for a backend to make.
pub(crate) fn existing_or_new(given: &Path) -> anyhow::Result<PathBuf> {
    Ok(find(given)?.unwrap_or_else(|| given.to_owned()))
}

/// Makes a directory, for its owner only, where there is none.
pub(crate) fn make(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| named(dir))
}

/// How an error about a directory begins.
pub(crate) fn named(dir: &Path) -> String {
    format!("the data directory {}", dir.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with_database(dir: &Path) {
        make(dir).unwrap();
        fs::write(dir.join(DATABASE), "").unwrap();
    }

    #[test]
    fn a_backends_directory_is_its_own_and_that_of_the_demo_around_it() {
        let parent = tempfile::tempdir().unwrap();
        let backends = parent.path().join(IN_DEV);
        with_database(&backends);
        assert_eq!(existing(&backends).unwrap(), backends);
        assert_eq!(existing(parent.path()).unwrap(), backends);
        assert_eq!(existing_or_new(parent.path()).unwrap(), backends);
        with_database(parent.path());
        assert_eq!(existing(parent.path()).unwrap(), parent.path());
    }

    #[test]
    fn looking_for_a_database_makes_none() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let said = existing(&dir).unwrap_err().to_string();
        let expected = format!("no oakallow database in {}: there is no such directory", dir.display());
        assert_eq!(said, expected);
        assert_eq!(existing_or_new(&dir).unwrap(), dir);
        assert!(!dir.exists());
        make(&dir).unwrap();
        assert_eq!(
            existing(&dir).unwrap_err().to_string(),
            format!("no oakallow database in {}", dir.display())
        );
    }

    #[test]
    fn an_error_names_the_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = file.path().join("data");
        for said in [existing(&below).unwrap_err(), existing_or_new(&below).unwrap_err()] {
            let said = format!("{said:#}");
            assert!(said.starts_with(&format!("the data directory {}: ", below.display())), "{said}");
        }
    }
}
