//! Starting and stopping: listeners, background work, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oakallow_policy::audit::{EventData, EventType, Head};
use pingora::apps::{HttpServerOptions, ServerApp as _};
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::app::App;
use crate::approval::Holds;
use crate::backend::Backend;
use crate::config::Config;
use crate::event;
use crate::forward::Upstream;
use crate::identity::{Identity, IdentityError};
use crate::mcp::Mcp;
use crate::metrics::Metrics;
use crate::ops::{admin as admin_router, ops as ops_router};
use crate::phases::Phases;
use crate::policy::Policy;
use crate::redact::Redactor;
use crate::schema::Schemas;
use crate::spool::{Chain, Spool, SpoolError};
use crate::{feed, ship};

/// Calls in flight get this long to finish when the proxy stops.
const DRAIN_MAX: Duration = Duration::from_secs(25);
/// Then the last events get this long to reach the backend; the rest is shipped by the next start.
const SHIP_MAX: Duration = Duration::from_secs(2);
/// How long an idle HTTP/2 connection is kept.
const H2_IDLE: Duration = Duration::from_secs(75);

/// Linux on x86, ARM and RISC-V, macOS, the BSDs.
const SIGXFSZ: i32 = 25;

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Backend(#[from] crate::backend::BackendError),
    #[error("the identity file is damaged: the signing key cannot be read")]
    SigningKey,
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("{what}: {problem}")]
    Io { what: String, problem: std::io::Error },
}

/// A proxy that runs.
pub struct Running {
    /// Where agents connect.
    pub data: SocketAddr,
    /// Health and metrics.
    pub ops: SocketAddr,
    /// Holds and explanations.
    pub admin: SocketAddr,
    app: Arc<App>,
    proxy: Arc<HttpProxy<Phases>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts a proxy: enrols if need be, takes up the last verified policy, closes the calls that a former
/// process left open, and listens. Calls are refused until a policy is loaded.
pub async fn start(config: Config) -> Result<Running, StartError> {
    // Somebody else in this process may have installed it; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let io = |what: &str| {
        let what = what.to_owned();
        move |problem| StartError::Io { what, problem }
    };
    // Stays in place for the life of the process: a write beyond the limit on a file's size then fails,
    // and the call is refused, where by default the process would be killed.
    let _ = signal(SignalKind::from_raw(SIGXFSZ)).map_err(io("the signal SIGXFSZ"))?;
    private_directory(&config).map_err(io("the state directory"))?;
    let listeners = [config.data, config.ops, config.admin];
    let app = build(config).await?;
    recover(&app).await?;
    let signing = app.identity.signing_key().ok_or(StartError::SigningKey)?;
    ship::first(&app, &signing).await;
    let data = TcpListener::bind(listeners[0]).await.map_err(io("the data listener"))?;
    let ops = TcpListener::bind(listeners[1]).await.map_err(io("the ops listener"))?;
    let admin = TcpListener::bind(listeners[2]).await.map_err(io("the admin listener"))?;
    let addr = |l: &TcpListener| l.local_addr().map_err(io("a listener's address"));
    let addrs = [addr(&data)?, addr(&ops)?, addr(&admin)?];
    let (stop, stopped) = watch::channel(false);
    let proxy = pingora_proxy(app.clone());
    let tasks = vec![
        tokio::spawn(feed::follow(app.clone())),
        tokio::spawn(ship::run(app.clone(), signing)),
        tokio::spawn(ship::beat(app.clone())),
        tokio::spawn(ship::definitions(app.clone())),
        tokio::spawn(accept(data, proxy.clone(), app.config.limits.connections_max, stopped)),
        tokio::spawn(serve_router(ops, ops_router(app.clone()))),
        tokio::spawn(serve_router(admin, admin_router(app.clone()))),
    ];
    Ok(Running { data: addrs[0], ops: addrs[1], admin: addrs[2], app, proxy, stop, tasks })
}

fn private_directory(config: &Config) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir)
}

async fn build(config: Config) -> Result<Arc<App>, StartError> {
    let has_run = Identity::is_kept(&config);
    let identity = Identity::load_or_enroll(&config).await?;
    let backend =
        Backend::new(config.backend_url.clone(), identity.proxy_id.clone(), identity.proxy_key.clone())?;
    let policy = Policy::new(
        identity.org.clone(),
        identity.bundle_key.clone(),
        backend.clone(),
        config.state_dir.join("policy"),
        config.staleness.clone(),
    );
    if let Err(e) = policy.load_from_disk() {
        tracing::error!(error = %e, "the policy that was kept is not used");
    }
    if let Err(e) = policy.refresh().await {
        tracing::warn!(error = %e, "the policy cannot be fetched yet");
    }
    let spool = Spool::open(
        &config.state_dir.join("spool"),
        &identity.source(),
        config.durability,
        config.limits.spool_events_max,
    )?;
    if has_run && spool.standing().head == Head::default() {
        // Each start writes an event, so its spool is lost, or it ended before the first one.
        spool.set_chain(Chain::Unconfirmed);
    }
    Ok(Arc::new(App {
        redactor: Redactor::new(identity.redaction_key(), &config.redact),
        holds: Arc::new(Holds::new(config.limits.clone())),
        metrics: Metrics::new()?,
        schemas: Schemas::default(),
        upstreams: config.routes.iter().map(|r| (r.name.clone(), Upstream::new(r))).collect(),
        mcp: Mcp::default(),
        releases: Semaphore::new(config.limits.releases_max),
        draining: watch::Sender::new(false),
        in_flight: AtomicUsize::new(0),
        config,
        identity,
        backend,
        policy,
        spool,
    }))
}

/// Closes the calls that a former process left open: each intent gets its one outcome.
async fn recover(app: &App) -> Result<(), StartError> {
    let open = app.spool.open_calls()?;
    if !open.is_empty() {
        tracing::warn!(calls = open.len(), "closing calls that were open when the proxy ended");
    }
    for (_, opened) in open {
        app.spool.append_outcome(event::closing(opened)).await?;
    }
    let data = EventData { reason: Some(env!("CARGO_PKG_VERSION").to_owned()), ..EventData::default() };
    app.spool.append_outcome(event::plain(EventType::ProxyStarted, None, data)).await?;
    Ok(())
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
    connections_max: usize,
    mut stopped: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(connections_max));
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
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let _ = tcp.set_nodelay(true);
        let (proxy, watched) = (proxy.clone(), watched.clone());
        tokio::spawn(async move {
            let stream = pingora::protocols::l4::stream::Stream::from(tcp);
            proxy.process_new(Box::new(stream), &watched).await;
            drop(place);
        });
    }
}

async fn serve_router(listener: TcpListener, router: axum::Router) {
    if let Err(e) = axum::serve(listener, router).await {
        tracing::error!(error = %e, "a listener ended");
    }
}

impl Running {
    /// Stops: not ready any more, new calls refused, held calls answered "pending", calls in flight
    /// finished, the last events shipped; all of it bounded.
    pub async fn shutdown(self) {
        self.app.draining.send_replace(true);
        let drained = async {
            while self.app.in_flight.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
            tracing::warn!("some calls did not finish in time; their outcomes will be `unknown`");
        }
        self.stop.send_replace(true);
        self.proxy.cleanup().await;
        let stopped = event::plain(EventType::ProxyStopped, None, EventData::default());
        if let Ok(seq) = self.app.spool.append_outcome(stopped).await {
            // What is not shipped now is shipped by the next start.
            let _ = tokio::time::timeout(SHIP_MAX, self.app.spool.acknowledged(seq)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
