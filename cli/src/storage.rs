//! Where a backend keeps what it knows, as people say it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use oakallow_backend::Database;
use oakallow_policy::wire::Secret;

use crate::data_dir;

/// The URL itself; a file is better, since an environment is seen by more people than one thinks.
const URL: &str = "OAKALLOW_DATABASE_URL";

#[derive(clap::Args)]
pub(crate) struct Storage {
    /// Where SQLite's file and the key file live; made if missing, readable by its owner only
    #[arg(long, value_name = "DIR", default_value = "oakallow-data", env = "OAKALLOW_DATA_DIR")]
    data_dir: PathBuf,
    /// A file with the URL of a PostgreSQL database, instead of SQLite [env: OAKALLOW_DATABASE_URL, the URL itself]
    #[arg(long, value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// The file with the key-encryption key, which all backends on one database share [default: in the data directory]
    #[arg(long, value_name = "FILE", env = "OAKALLOW_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

impl Storage {
    pub(crate) fn database(&self) -> anyhow::Result<Database> {
        let url = match &self.database_url_file {
            Some(file) => {
                std::fs::read_to_string(file).with_context(|| format!("the file {}", file.display()))?
            }
            None => match std::env::var(URL) {
                Ok(url) => url,
                Err(std::env::VarError::NotPresent) => return Ok(Database::DataDir),
                Err(error) => return Err(error).context(URL),
            },
        };
        let url = url.trim();
        if url.is_empty() {
            bail!("the URL of the database is empty");
        }
        Ok(Database::Postgres(Secret::new(url.to_owned())))
    }

    /// The data directory, made by the backend where it is missing.
    pub(crate) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        data_dir::existing_or_new(&self.data_dir)
    }

    /// The data directory of a backend that is there already, as far as the directory can tell.
    pub(crate) fn existing(&self, database: &Database) -> anyhow::Result<PathBuf> {
        match database {
            Database::DataDir => data_dir::existing(&self.data_dir),
            Database::Postgres(_) => self.data_dir(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        storage: Storage,
    }

    fn database(file: &std::path::Path) -> anyhow::Result<Database> {
        let given = file.as_os_str();
        Line::parse_from(["oakallow".as_ref(), "--database-url-file".as_ref(), given]).storage.database()
    }

    #[test]
    fn the_url_of_a_database_is_read_from_its_file_and_shown_nowhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://oakallow:hunter2@db/oakallow\n").unwrap();
        let read = database(file.path()).unwrap();
        let url = Secret::new("postgres://oakallow:hunter2@db/oakallow".to_owned());
        assert!(!format!("{read:?}").contains("hunter2"));
        assert_eq!(read, Database::Postgres(url));
        std::fs::write(file.path(), "\n").unwrap();
        assert!(database(file.path()).unwrap_err().to_string().contains("empty"));
        std::fs::remove_file(file.path()).unwrap();
        let missing = database(file.path()).unwrap_err().to_string();
        assert!(missing.contains(&file.path().display().to_string()), "{missing}");
    }
}
