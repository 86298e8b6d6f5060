//! `oakallow dev`: backend, proxy and demo tool server in one process, with a demo org to try.
//!
//! Everything is made as it would be made for real: the org through the REST API with a management key,
//! the proxy from a configuration file and a join token, the tool server with a key of its own.

mod api;
mod banner;
mod data_dir;
mod env_file;
mod proxy_config;
mod seed;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use self::data_dir::DataDir;
use self::env_file::Urls;
use self::proxy_config::Between;
use crate::logs::{self, Format};
use crate::run::{Stop, block_on};
use crate::{Done, address, demo_tools};

/// Quiet: what goes wrong, and what the demo tools do.
const FILTER: &str = "warn,oakallow::demo_tools=info";
/// `oakallow dev`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where agents send tool calls
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = "127.0.0.1:8080")]
    proxy: SocketAddr,
    /// Where the REST API and the approvals page are
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = "127.0.0.1:4000")]
    backend: SocketAddr,
    /// Where the proxy's admin listener is
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Where the demo tool server is
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = "127.0.0.1:9000")]
    tools: SocketAddr,
    /// Keep everything here, across restarts [default: a temporary directory, removed in the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs the demo until it is told to stop.
pub(crate) fn run(args: &Args) -> anyhow::Result<Done> {
    logs::init(Format::Text, FILTER)?;
    check_ports(args)?;
    let data = DataDir::take(args.data_dir.as_deref())?;
    block_on(async {
        let mut stop = Stop::listen()?;
        let stack = tokio::select! {
            stack = Stack::start(args, &data) => stack?,
            () = stop.requested() => return Ok(Done::Ok),
        };
        banner::print(&stack.urls, &data)?;
        stop.requested().await;
        say("stopping")?;
        stack.shutdown().await;
        Ok(Done::Ok)
    })
}

/// Each address that is taken is named with its flag, before anything is started.
fn check_ports(args: &Args) -> anyhow::Result<()> {
    let wanted = [
        ("--proxy", args.proxy),
        ("--backend", args.backend),
        ("--admin", args.admin),
        ("--tools", args.tools),
    ];
    for (flag, addr) in wanted {
        TcpListener::bind(addr).map_err(|e| {
            anyhow!(
                "cannot listen on {addr} ({e}): choose another address with {flag} (port 0 takes a free one)"
            )
        })?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes a file for its owner only: whole or not at all.
fn private_file(file: &Path, contents: &str) -> anyhow::Result<()> {
    let part = file.with_extension("part");
    let failed = || format!("cannot write {}", file.display());
    // One left behind by a crash may have another mode.
    let _ = fs::remove_file(&part);
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).with_context(failed)?;
    out.write_all(contents.as_bytes()).with_context(failed)?;
    out.sync_all().with_context(failed)?;
    fs::rename(&part, file).with_context(failed)
}

/// The three servers.
struct Stack {
    backend: oakallow_backend::Running,
    tools: demo_tools::Running,
    proxy: oakallow_proxy::Running,
    urls: Urls,
}

impl Stack {
    async fn start(args: &Args, data: &DataDir) -> anyhow::Result<Self> {
        let backend_config = oakallow_backend::Config::new(args.backend, data.backend());
        let backend = oakallow_backend::start(backend_config).await.context("the backend cannot start")?;
        let backend_url = format!("http://{}", backend.addr);
        say(&format!("backend      {backend_url}"))?;

        let env = data.path().join("dev.env");
        let keys = seed::keys(&backend, &backend_url, &env).await?;

        let tools = demo_tools::start(demo_tools::Config {
            listen: args.tools,
            backend: backend_url.clone(),
            tool_key: keys.tool.clone(),
        })
        .await?;
        let tools_url = format!("http://{}", tools.addr);
        say(&format!("demo tools   {tools_url}"))?;

        let between = Between { backend: &backend_url, tools: &tools_url };
        let config = proxy_config::write(args, data, &between, &keys.management)
            .await
            .context("the proxy cannot be configured")?;
        let proxy = oakallow_proxy::start(config).await.context("the proxy cannot start")?;
        say(&format!("proxy        http://{}", proxy.data))?;

        let urls = Urls {
            proxy: format!("http://{}", proxy.data),
            backend: backend_url,
            admin: format!("http://{}", proxy.admin),
            ops: format!("http://{}", proxy.ops),
            tools: tools_url,
            dashboard: backend.issue_login_link(seed::ORG, seed::APPROVER).await?,
        };
        env_file::write(&env, &urls, &keys)?;
        Ok(Self { backend, tools, proxy, urls })
    }

    /// In the order in which calls flow, so that each can still hand over what it holds.
    async fn shutdown(self) {
        self.proxy.shutdown().await;
        self.tools.shutdown().await;
        self.backend.shutdown().await;
    }
}
