//! What can be set, with defaults that suit production.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use oakallow_policy::wire::Secret;

use crate::approvals::ApprovalLimits;
use crate::clock::Clock;

/// Where what the backend knows is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Database {
    /// SQLite, in the data directory: for one backend.
    #[default]
    DataDir,
    /// PostgreSQL at this URL, which several backends may share. Secret, since a password may stand in it.
    Postgres(Secret),
}

/// How to run a backend.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 picks a free one ([`crate::Running::addr`]).
    pub listen: SocketAddr,
    /// Where SQLite's file and the key file live. Created with mode 0700.
    pub data_dir: PathBuf,
    /// The database.
    pub database: Database,
    /// The file with the key-encryption key, which all backends on one database share. `None`: in the data directory.
    pub key_file: Option<PathBuf>,
    /// Nobody else may serve the data directory meanwhile. `false` for one local operation beside a backend.
    pub alone: bool,
    /// How people reach it: the base of login links and `Location` headers.
    /// `None`: `http://localhost:<port>`.
    pub public_url: Option<String>,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Longest time until a request is answered (long polls and streams have their own limits).
    pub request_timeout: Duration,
    /// Longest time until a request's headers are there, and longest life of an idle connection.
    pub header_timeout: Duration,
    /// How often a proxy is told that its policy is still current.
    pub current_interval: Duration,
    /// How often expired approvals are swept, and usage of keys is written.
    pub sweep_interval: Duration,
    /// How long a shutdown waits for requests under way.
    pub shutdown_grace: Duration,
    /// How long approvals, denials and executions count.
    pub approvals: ApprovalLimits,
    /// Tells the time.
    pub clock: Clock,
}

impl Config {
    /// The defaults for a data directory.
    #[must_use]
    pub fn new(listen: SocketAddr, data_dir: PathBuf) -> Self {
        Self { listen, data_dir, ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4000)),
            data_dir: PathBuf::from("oakallow-data"),
            database: Database::DataDir,
            key_file: None,
            alone: true,
            public_url: None,
            // A batch of audit events is the largest thing that is sent here.
            body_bytes_max: 4 * 1024 * 1024,
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            current_interval: Duration::from_secs(20),
            sweep_interval: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(10),
            approvals: ApprovalLimits::default(),
            clock: Clock::system(),
        }
    }
}
