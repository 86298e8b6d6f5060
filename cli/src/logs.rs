//! Where logs go and what they look like.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use oakallow_proxy::logs::may_be_written;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One readable line each
    Text,
    /// One JSON object each
    Json,
}

/// Sends logs to standard error. `RUST_LOG` wins over `default_filter`.
pub(crate) fn init(format: Format, default_filter: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(written) if !written.is_empty() => {
            EnvFilter::try_new(&written).map_err(|e| anyhow::anyhow!("RUST_LOG={written}: {e}"))?
        }
        _ => EnvFilter::try_new(default_filter)?,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = match format {
        Format::Text => builder.compact().finish().with(filter_fn(may_be_written)).try_init(),
        Format::Json => builder.json().finish().with(filter_fn(may_be_written)).try_init(),
    };
    set.map_err(|e| anyhow::anyhow!("logging cannot start: {e}"))
}
