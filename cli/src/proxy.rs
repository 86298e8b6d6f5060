//! `oakallow proxy`: the proxy alone, over HTTP as the binary `oakallow-proxy`, or around one MCP server that
//! speaks over standard input and output.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use oakallow_policy::id::Name;
use oakallow_proxy::config::Config;
use oakallow_proxy::mcp::stdio::{self, End, Wrapped};

use crate::Done;
use crate::logs::{self, Format};
use crate::run::{SERVER_FILTER, Stop, block_on};

/// What `--help` shows at its end.
const HELP: &str = "\
An MCP client that starts its servers starts the proxy in their place, with the server's command behind `--`:

  OAKALLOW_API_KEY=oak_agent_… \\
    oakallow proxy --stdio --config stdio.yaml -- npx -y @modelcontextprotocol/server-filesystem ~/notes

Nothing listens then, unless the file says `listen: ops` or `listen: admin`. The server does not get the variables
OAKALLOW_* of the environment. OAKALLOW_TENANT_ID names the tenant for a key that reaches several.";

/// `oakallow proxy`
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Its configuration; see config/proxy.yaml, for --stdio config/stdio.yaml
    #[arg(long, value_name = "FILE", env = "OAKALLOW_PROXY_CONFIG")]
    config: PathBuf,
    /// The form of log lines
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
    /// Stand between an MCP client and one MCP server, over standard input and output; the agent's key is in
    /// OAKALLOW_API_KEY
    #[arg(long, requires = "command")]
    stdio: bool,
    /// The `stdio` route to go by, when the file has several
    #[arg(long, value_name = "NAME", requires = "stdio")]
    route: Option<Name>,
    /// The MCP server to start, and its arguments
    #[arg(last = true, value_name = "COMMAND", requires = "stdio")]
    command: Vec<OsString>,
}

/// Runs the proxy until it is told to stop, then drains it.
pub(crate) fn run(args: Args) -> anyhow::Result<Done> {
    logs::init(args.log_format, SERVER_FILTER)?;
    block_on(async {
        let mut stop = Stop::listen()?;
        let config = Config::load(&args.config)?;
        if args.stdio {
            return wrap(config, Wrapped { route: args.route, command: args.command }, &mut stop).await;
        }
        let mut proxy = oakallow_proxy::start(config).await.context("the proxy cannot start")?;
        proxy.follow(args.config);
        tracing::info!(listen = %proxy.addresses(), ops = %proxy.ops, admin = %proxy.admin, "the proxy is ready");
        stop.requested().await;
        tracing::info!("stopping");
        proxy.shutdown().await;
        Ok(Done::Ok)
    })
}

async fn wrap(config: Config, wrapped: Wrapped, stop: &mut Stop) -> anyhow::Result<Done> {
    match stdio::run(config, &wrapped, stop.requested()).await.context("the proxy cannot start")? {
        End::ClientLeft | End::Stopped => Ok(Done::Ok),
        End::ServerEnded(Some(status)) => bail!("the tool server ended by itself: {status}"),
        End::ServerEnded(None) => bail!("the tool server's output ended"),
    }
}
