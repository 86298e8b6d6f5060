//! Why there is no connection for a request, and whose fault that is.

use std::io;

use tokio::time::{Instant, timeout_at};

/// Why there is no connection for a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unopened {
    /// It waited for others to open one. How that went, they say.
    #[error("the connections that others were opening took too long")]
    Waited,
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A connection that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}", .stage.says())]
pub(super) struct Failure {
    stage: Stage,
    #[source]
    error: io::Error,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Lookup,
    Connect,
    Tls,
    Http,
}

/// As the metric has them.
pub(crate) const REASONS: [&str; 8] =
    ["lookup", "refused", "unreachable", "timed_out", "tls", "http", "local", "waited"];

/// Does this in time, as a part of opening a connection.
pub(super) async fn within<T>(
    deadline: Instant,
    stage: Stage,
    doing: impl Future<Output = io::Result<T>>,
) -> Result<T, Failure> {
    let done = timeout_at(deadline, doing).await;
    let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "it took longer than `connect_s`");
    done.map_err(timed_out).flatten().map_err(|error| Failure { stage, error })
}

impl Stage {
    fn says(self) -> &'static str {
        match self {
            Self::Lookup => "its name cannot be looked up",
            Self::Connect => "no connection",
            Self::Tls => "no TLS",
            Self::Http => "no HTTP",
        }
    }
}

impl Unopened {
    /// One of [`REASONS`].
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Waited => "waited",
            Self::Failed(failure) => failure.reason(),
        }
    }

    /// Whether it says that the endpoint is not there: it does not when we waited for ourselves, or when this machine
    /// has no file descriptor, port or memory left for a connection.
    pub(super) fn is_of_the_endpoint(&self) -> bool {
        !matches!(self.reason(), "waited" | "local")
    }
}

impl Failure {
    pub(super) fn new(stage: Stage, error: io::Error) -> Self {
        Self { stage, error }
    }

    fn reason(&self) -> &'static str {
        use io::ErrorKind as Kind;
        match (self.stage, self.error.kind()) {
            (_, Kind::TimedOut) => "timed_out",
            // The resolver's own answers are no errors of the operating system.
            (Stage::Lookup, _) if self.error.raw_os_error().is_some() => "local",
            (Stage::Lookup, _) => "lookup",
            (Stage::Tls, _) => "tls",
            (Stage::Http, _) => "http",
            // A Unix socket that is not there is `NotFound`.
            (
                Stage::Connect,
                Kind::ConnectionRefused | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::NotFound,
            ) => "refused",
            (Stage::Connect, Kind::HostUnreachable | Kind::NetworkUnreachable) => "unreachable",
            (Stage::Connect, _) => "local",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_not_held_against_an_endpoint() {
        // As Linux has them: EMFILE, ENFILE, ENOBUFS, EADDRNOTAVAIL, EACCES; ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, ENOENT.
        for (number, reason) in [
            (24, "local"),
            (23, "local"),
            (105, "local"),
            (99, "local"),
            (13, "local"),
            (111, "refused"),
            (113, "unreachable"),
            (110, "timed_out"),
            (2, "refused"),
        ] {
            let failed = Unopened::from(Failure::new(Stage::Connect, io::Error::from_raw_os_error(number)));
            assert_eq!(failed.reason(), reason, "{number}");
            assert_eq!(failed.is_of_the_endpoint(), reason != "local");
            assert!(REASONS.contains(&failed.reason()));
        }
        let of = |stage| Unopened::from(Failure::new(stage, io::Error::other("x")));
        let reasons = [Stage::Lookup, Stage::Tls, Stage::Http].map(|stage| of(stage).reason());
        assert_eq!(reasons, ["lookup", "tls", "http"]);
        assert!(!Unopened::Waited.is_of_the_endpoint());
    }
}
