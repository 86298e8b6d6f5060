//! The proxy over HTTP: its listeners, and how it starts and stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::apps::{HttpServerOptions, ServerApp as _};
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::App;
use crate::base::{Base, StartError, bind};
use crate::config::{Config, Listen};
use crate::ops::{admin as admin_router, ops as ops_router};
use crate::phases::Phases;
use crate::reload;
use crate::stream::Gathered;

/// Calls in flight get this long to finish when the proxy stops.
const DRAIN_MAX: Duration = Duration::from_secs(25);
/// How long an idle HTTP/2 connection is kept.
const H2_IDLE: Duration = Duration::from_secs(75);

/// A proxy that runs.
pub struct Running {
    /// Where agents connect.
    pub data: SocketAddr,
    /// Health and metrics.
    pub ops: SocketAddr,
    /// Holds and explanations.
    pub admin: SocketAddr,
    base: Base,
    proxy: Arc<HttpProxy<Phases>>,
    stop: watch::Sender<bool>,
}

/// Starts a proxy, as [`Base::start`] says, and listens.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let Listen { data: Some(data), ops: Some(ops), admin: Some(admin) } = config.listen else {
        return Err(StartError::OnlyStdio);
    };
    let mut base = Base::start(config).await?;
    let app = base.app.clone();
    let (listener, data) = bind("data", data).await?;
    let ops = base.serve("ops", ops, ops_router(app.clone())).await?;
    let admin = base.serve("admin", admin, admin_router(app.clone())).await?;
    let (stop, stopped) = watch::channel(false);
    let proxy = pingora_proxy(app.clone());
    base.spawn(accept(listener, proxy.clone(), app, stopped));
    Ok(Running { data, ops, admin, base, proxy, stop })
}

fn pingora_proxy(app: Arc<App>) -> Arc<HttpProxy<Phases>> {
    let mut proxy = http_proxy(&Arc::new(ServerConf::default()), Phases(app));
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(H2_IDLE);
    proxy.server_options = Some(options);
    Arc::new(proxy)
}

/// Our own accept loop: it knows its port, counts connections and stops when told, none of which
/// Pingora's server does.
async fn accept(
    listener: TcpListener,
    proxy: Arc<HttpProxy<Phases>>,
    app: Arc<App>,
    mut stopped: watch::Receiver<bool>,
) {
    let watched = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|s| *s) => return,
        };
        let Ok((tcp, _)) = accepted else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(connection) = app.connections.enter(&app.live().config.limits) else {
            app.metrics.connections_refused.inc();
            continue;
        };
        if connection.is_surplus() {
            app.metrics.connections_refused.inc();
        }
        let _ = tcp.set_nodelay(true);
        let (proxy, watched) = (proxy.clone(), watched.clone());
        tokio::spawn(async move {
            let mut stream = pingora::protocols::l4::stream::Stream::from(tcp);
            connection.accompany(&mut stream);
            tokio::select! {
                _ = proxy.process_new(Box::new(Gathered::new(stream)), &watched) => {}
                () = connection.overdue() => {}
            }
        });
    }
}

impl Running {
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
        self.proxy.cleanup().await;
        self.base.finish().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
