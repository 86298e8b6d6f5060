//! `oakallow proxy`: the proxy alone. The same as the binary `oakallow-proxy`.

use std::path::PathBuf;

use anyhow::Context as _;
use oakallow_proxy::config::Config;

use crate::Done;
use crate::logs::{self, Format};
use crate::run::{SERVER_FILTER, Stop, block_on};

/// `oakallow proxy`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Its configuration; see config/proxy.yaml
    #[arg(long, value_name = "FILE", env = "OAKALLOW_PROXY_CONFIG")]
    config: PathBuf,
    /// The form of log lines
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
}

/// Runs the proxy until it is told to stop, then drains it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Done> {
    logs::init(args.log_format, SERVER_FILTER)?;
    block_on(async {
        let mut stop = Stop::listen()?;
        let config = Config::load(&args.config)?;
        let proxy = oakallow_proxy::start(config).await.context("the proxy cannot start")?;
        tracing::info!(listen = %proxy.data, ops = %proxy.ops, admin = %proxy.admin, "the proxy is ready");
        stop.requested().await;
        tracing::info!("stopping");
        proxy.shutdown().await;
        Ok(Done::Ok)
    })
}
