//! The demo tool server: four tools with an effect that can be seen, behind the check that every real
//! tool server should make.
//!
//! A call runs only with an execution token that the backend redeems for exactly this request. A call
//! without one, or with one that was altered, used before or meant for another request, is refused and
//! counted, and nothing happens.
//!
//! In: HTTP (`POST /tools/<tool>`), MCP over streamable HTTP (`/mcp`, both protocol eras) and
//! `GET /executions`. Out: persistence; the world is in memory and starts anew.

pub(crate) mod catalog;
mod http;
mod mcp;
#[cfg(test)]
mod tests;
mod verify;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use oakallow_policy::wire::Secret;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long open answers may take to end once the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What the server needs.
pub(crate) struct Config {
    /// Where it listens; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// The backend that redeems tokens, without a trailing slash.
    pub(crate) backend: String,
    /// `oak_tool_…` of this server's audience.
    pub(crate) tool_key: Secret,
}

/// A running demo tool server.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

/// Starts the server; returns once it accepts connections.
pub(crate) async fn start(config: Config) -> anyhow::Result<Running> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("the demo tool server cannot listen on {}", config.listen))?;
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let server = http::Server::new(&config)?;
    let router = http::router(server, addr, stopped.clone());
    let task =
        tokio::spawn(
            async move { axum::serve(listener, router).with_graceful_shutdown(until(stopped)).await },
        );
    Ok(Running { addr, stop, task })
}

/// Resolves when the server is told to stop, or when whoever could tell it is gone.
async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

impl Running {
    /// Stops accepting, lets open answers end for a moment, then cuts them.
    pub(crate) async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(DRAIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
