//! The commands that run one server until they are told to stop.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use oakallow_policy::wire::Secret;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Done;
use crate::address;
use crate::demo_tools;
use crate::logs::{self, Format};

/// What a server logs when nobody says otherwise.
pub(crate) const SERVER_FILTER: &str = "info";
/// How long blocking work may go on after the end.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// `oakallow demo-tools`
#[derive(clap::Args)]
pub(crate) struct DemoToolsArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The backend that redeems execution tokens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4000")]
    backend: String,
    /// Environment variable that holds the tool server's key (oak_tool_…)
    #[arg(long, value_name = "NAME", default_value = "OAKALLOW_TOOL_KEY")]
    tool_key_env: String,
    /// File that holds the key, instead of the environment variable
    #[arg(long, value_name = "FILE", conflicts_with = "tool_key_env")]
    tool_key_file: Option<PathBuf>,
    /// The form of log lines
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
}

/// Runs the demo tool server alone.
pub(crate) fn demo_tools(args: DemoToolsArgs) -> anyhow::Result<Done> {
    logs::init(args.log_format, SERVER_FILTER)?;
    let tool_key = tool_key(&args)?;
    block_on(async {
        let mut stop = Stop::listen()?;
        let config = demo_tools::Config { listen: args.listen, backend: args.backend, tool_key };
        let server = demo_tools::start(config).await?;
        tracing::info!(listen = %server.addr, "the demo tool server is ready");
        stop.requested().await;
        server.shutdown().await;
        Ok(Done::Ok)
    })
}

fn tool_key(args: &DemoToolsArgs) -> anyhow::Result<Secret> {
    let (key, place) = match &args.tool_key_file {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            (text.trim().to_owned(), file.display().to_string())
        }
        None => match env::var(&args.tool_key_env) {
            Ok(key) => (key, args.tool_key_env.clone()),
            Err(_) => bail!("set {} to the tool server's key (oak_tool_…)", args.tool_key_env),
        },
    };
    if !key.starts_with("oak_tool_") {
        bail!("{place} does not hold a tool server's key (oak_tool_…)");
    }
    Ok(Secret::new(key))
}

/// Runs the command's future on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    // Whatever still runs now was told to stop before.
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

/// SIGINT and SIGTERM, from the moment of [`Stop::listen`] on.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Takes the two signals over.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Resolves at the next of them.
    pub(crate) async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
