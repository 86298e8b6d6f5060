//! What is never logged, whatever `RUST_LOG` says.

use tracing::{Level, Metadata};

/// Whether a line may be written: Pingora's most detailed ones show the header fields of requests, keys and all.
#[must_use]
pub fn may_be_written(line: &Metadata<'_>) -> bool {
    *line.level() != Level::TRACE || !line.target().starts_with("pingora")
}
