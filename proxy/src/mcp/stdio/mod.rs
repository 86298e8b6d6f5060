//! MCP over standard input and output: an agent's program starts the proxy, and the proxy starts the tool
//! server. Nothing listens, so nobody else can talk to the server, and what the agent says passes here.
//!
//! One message is one line. Where it comes from: [`lines`]. What is done with the client's: [`exchange`],
//! with the server's: [`answers`]. Which requests the server has not answered yet: [`flights`]. What is a
//! call takes the path of every call, [`crate::enforce`]; here is only what another transport makes other.

mod answers;
mod client;
mod credential;
mod exchange;
mod flights;
mod lines;
mod server;
mod waiting;
mod wire;

use std::ffi::OsString;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oakallow_policy::id::Name;
use tokio::task::JoinHandle;

use crate::base::{Base, StartError};
use crate::config::{Config, Listen};
use crate::ops::{admin, ops};
use crate::refusal::Refusal;
use crate::route::{Route, RouteKind};
use client::Client;
use credential::Credential;
use exchange::Exchange;
use flights::Flights;
use server::Process;

/// A server that is told to end by the end of its input gets this long. Clients give the two of us 2 s
/// before they send SIGTERM, and as long again before SIGKILL.
const GRACE: Duration = Duration::from_millis(1_500);
/// What was under way gets this long to be written down.
const REST_MAX: Duration = Duration::from_millis(500);

/// What is wrapped.
#[derive(Debug, Clone)]
pub struct Wrapped {
    /// The route; may be left out when there is one only.
    pub route: Option<Name>,
    /// The tool server's program and its arguments.
    pub command: Vec<OsString>,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// The client closed our input, or does not read our output any more.
    ClientLeft,
    /// We were told to stop.
    Stopped,
    /// The tool server ended by itself; how, if that could be heard.
    ServerEnded(Option<ExitStatus>),
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum WrapError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the configuration has no route of the kind `stdio`; see config/stdio.yaml")]
    NoRoute,
    #[error("the configuration has several routes: name one of them with --route ({0})")]
    WhichRoute(String),
    #[error("the configuration has no route `{0}`; it has {1}")]
    UnknownRoute(Name, String),
    #[error("no key: set {} to the agent's key (oak_agent_… or oak_live_…)", credential::KEY)]
    NoKey,
    #[error("the agent's key in {} is not accepted: {}", credential::KEY, .0)]
    BadKey(String),
    #[error(
        "no policy is loaded, so nothing can be decided: the backend cannot be reached and none was kept"
    )]
    NoPolicy,
    #[error("the tool server `{command}` cannot be started: {problem}")]
    Spawn { command: String, problem: std::io::Error },
}

/// Runs a tool server behind the proxy until the client leaves, `stop` resolves or the server ends.
pub async fn run(
    config: Config,
    wrapped: &Wrapped,
    stop: impl Future<Output = ()>,
) -> Result<End, WrapError> {
    let route = choose(&config, wrapped.route.as_ref())?;
    let credential = Credential::from_environment()?;
    let Listen { ops: ops_address, admin: admin_address, .. } = config.listen;
    let mut base = Base::start(config).await?;
    let app = base.app.clone();
    if let Some(address) = ops_address {
        let address = base.serve("ops", address, ops(app.clone())).await?;
        tracing::info!(%address, "the ops listener is ready");
    }
    if let Some(address) = admin_address {
        let address = base.serve("admin", address, admin(app.clone())).await?;
        tracing::info!(%address, "the admin listener is ready");
    }
    credential.check(&app.policy.snapshot())?;
    let (server, process, answers) = server::start(&wrapped.command, &credential)?;
    let lines = lines::read(std::io::stdin(), app.live().config.limits.body_bytes_max);
    let flights = Flights::new(app.live().config.limits.connections_max);
    let client = Client::new(std::io::stdout());
    let exchange = Arc::new(Exchange { app, route, credential, server, client, flights });
    tracing::info!(route = exchange.route.name.as_str(), pid = process.id(), "the tool server is wrapped");
    let end = serve(&exchange, process, (lines, answers), stop).await;
    base.finish().await;
    Ok(end)
}

fn choose(config: &Config, wanted: Option<&Name>) -> Result<Arc<Route>, WrapError> {
    let routes: Vec<&Arc<Route>> = config.routes.iter().filter(|r| r.kind == RouteKind::Stdio).collect();
    let names = || routes.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, routes.as_slice()) {
        (_, []) => Err(WrapError::NoRoute),
        (None, [one]) => Ok((*one).clone()),
        (None, _) => Err(WrapError::WhichRoute(names())),
        (Some(name), routes) => {
            let found = routes.iter().find(|r| r.name == *name).map(|r| (*r).clone());
            found.ok_or_else(|| WrapError::UnknownRoute(name.clone(), names()))
        }
    }
}

/// Serves both sides, then ends in order: no more calls, the server's input closed, its last answers handed
/// on, whatever is left written down.
async fn serve(
    exchange: &Arc<Exchange>,
    mut process: Process,
    (lines, answers): (lines::Lines, lines::Lines),
    stop: impl Future<Output = ()>,
) -> End {
    let mut intake = tokio::spawn(exchange::take_all(exchange.clone(), lines));
    let mut outlet = tokio::spawn(answers::hand_on_all(exchange.clone(), answers));
    let end = tokio::select! {
        // A signal to the whole group of processes ends the server too; then it is we who were stopped.
        biased;
        () = stop => End::Stopped,
        () = exchange.client.gone() => End::ClientLeft,
        _ = &mut intake => End::ClientLeft,
        _ = &mut outlet => End::ServerEnded(None),
    };
    exchange.app.draining.send_replace(true);
    intake.abort();
    let status = wind_up(exchange, &mut process, outlet).await;
    if matches!(end, End::ServerEnded(_)) { End::ServerEnded(status) } else { end }
}

async fn wind_up(
    exchange: &Arc<Exchange>,
    process: &mut Process,
    outlet: JoinHandle<()>,
) -> Option<ExitStatus> {
    // A server that does not read keeps a line under way; it is killed below.
    let _ = tokio::time::timeout(REST_MAX, exchange.server.close()).await;
    let status = process.end_within(GRACE).await;
    if !outlet.is_finished() {
        // A child of the server's may still hold its output open.
        let _ = tokio::time::timeout(REST_MAX, outlet).await;
    }
    for flight in exchange.flights.close() {
        exchange.lost(flight, &Refusal::UpstreamBroken).await;
    }
    let idle = async {
        while exchange.app.in_flight.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(REST_MAX, idle).await;
    status
}
