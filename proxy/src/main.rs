//! `oakallow-proxy --config FILE`: the proxy alone, for containers.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use oakallow_proxy::config::Config;
use oakallow_proxy::logs::may_be_written;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Decides, holds, signs, forwards and records tool calls.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .finish()
        .with(filter_fn(may_be_written))
        .init();
    let config = Config::load(&args.config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut proxy = oakallow_proxy::start(config).await.context("the proxy cannot start")?;
    proxy.follow(args.config);
    tracing::info!(listen = %proxy.addresses(), ops = %proxy.ops, admin = %proxy.admin, "the proxy is ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    proxy.shutdown().await;
    Ok(())
}
