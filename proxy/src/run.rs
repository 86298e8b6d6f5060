//! The proxy over HTTP: its listeners, and how it starts and stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::{Base, StartError};
use crate::config::{Config, Listen};
use crate::listen::http::Server;
use crate::listen::{Listener, accept, bind, follow};
use crate::ops::{admin as admin_router, ops as ops_router};
use crate::reload;

/// Calls in flight get this long to finish when the proxy stops.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// A proxy that runs.
pub struct Running {
    /// Where agents connect: the first of `listeners` over TCP; port 0 when there is none.
    pub data: SocketAddr,
    /// All listeners for agents, in the order of the configuration.
    pub listeners: Vec<Arc<Listener>>,
    /// Health and metrics.
    pub ops: SocketAddr,
    /// Holds and explanations.
    pub admin: SocketAddr,
    base: Base,
    server: Arc<Server>,
    stop: watch::Sender<bool>,
}

/// Starts a proxy, as [`Base::start`] says, and listens.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let Listen { data, ops: Some(ops), admin: Some(admin) } = config.listen.clone() else {
        return Err(StartError::OnlyStdio);
    };
    if data.is_empty() {
        return Err(StartError::OnlyStdio);
    }
    config.check_files().map_err(StartError::Files)?;
    reload::caution(&config);
    let mut base = Base::start(config).await?;
    let app = base.app.clone();
    let mut open = Vec::new();
    for listener in data {
        open.push(bind(listener).await?);
    }
    let listeners: Vec<Arc<Listener>> = open.iter().map(|(listener, _)| listener.clone()).collect();
    let ops = base.serve("ops", ops, ops_router(app.clone())).await?;
    let admin = base.serve("admin", admin, admin_router(app.clone())).await?;
    let (stop, stopped) = watch::channel(false);
    let server = Server::new(&app);
    for listener in open {
        base.spawn(accept(listener, server.clone(), app.clone(), stopped.clone()));
    }
    if listeners.iter().any(|listener| listener.tls.is_some()) {
        base.spawn(follow(app, listeners.clone()));
    }
    let data = listeners.iter().find_map(|l| l.tcp()).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    Ok(Running { data, listeners, ops, admin, base, server, stop })
}

impl Running {
    /// Where agents connect, for people.
    #[must_use]
    pub fn addresses(&self) -> String {
        let all: Vec<String> = self.listeners.iter().map(|listener| listener.at.to_string()).collect();
        all.join(", ")
    }

    /// Takes up the file that the configuration came from whenever it changes or SIGHUP asks for it.
    pub fn follow(&mut self, path: PathBuf) {
        self.base.spawn(reload::follow(self.base.app.clone(), path));
    }

    /// Stops: not ready any more, new calls refused, held calls answered "pending", calls in flight
    /// finished, the last events shipped; all of it bounded.
    pub async fn shutdown(self) {
        self.base.app.draining.send_replace(true);
        let drained = async {
            while self.base.app.in_flight.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
            tracing::warn!("some calls did not finish in time; their outcomes will be `unknown`");
        }
        self.stop.send_replace(true);
        self.server.cleanup().await;
        self.base.finish().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
