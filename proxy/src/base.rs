//! What runs in every proxy, whichever way its calls come: identity, policy and spool, and the tasks that
//! keep them up with the backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use oakallow_policy::audit::{EventData, EventType, Head};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::approval::Holds;
use crate::backend::Backend;
use crate::config::Config;
use crate::connection::Connections;
use crate::event;
use crate::forward::LinkError;
use crate::hangup::Hangup;
use crate::identity::{Identity, IdentityError, IssuerError, Issuers, follow_clock};
use crate::live::Live;
use crate::mcp::Mcp;
use crate::metrics::Metrics;
use crate::observe::Observer;
use crate::observe::access::AccessLog;
use crate::policy::Policy;
use crate::schema::Schemas;
use crate::spool::{Chain, Spool, SpoolError};
use crate::{feed, ship};

/// At the end the last events get this long to reach the backend; the rest is shipped by the next start.
const SHIP_MAX: Duration = Duration::from_secs(2);
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
    #[error("{0}")]
    Observer(String),
    #[error(transparent)]
    Issuers(#[from] IssuerError),
    #[error(transparent)]
    Tls(#[from] crate::pem::PemError),
    #[error("{0}")]
    Files(String),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the configuration has `stdio` routes: run `oakallow proxy --stdio --config FILE -- COMMAND`")]
    OnlyStdio,
    #[error("{what}: {problem}")]
    Io { what: String, problem: std::io::Error },
}

/// The parts of a proxy that have nothing to do with how calls come.
pub struct Base {
    /// What all of it shares.
    pub app: Arc<App>,
    tasks: Vec<JoinHandle<()>>,
}

impl Base {
    /// Enrols if need be, takes up the last verified policy, and closes the calls that a former process left
    /// open. Calls are refused until a policy is loaded.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // Somebody else in this process may have installed it; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Stays in place for the life of the process: a write beyond the limit on a file's size then fails,
        // and the call is refused, where by default the process would be killed.
        let _ = signal(SignalKind::from_raw(SIGXFSZ)).map_err(io("the signal SIGXFSZ"))?;
        private_directory(&config).map_err(io("the state directory"))?;
        let app = build(config).await?;
        recover(&app).await?;
        let signing = app.identity.signing_key().ok_or(StartError::SigningKey)?;
        ship::first(&app, &signing).await;
        let mut tasks = vec![
            tokio::spawn(Issuers::follow(app.clone())),
            tokio::spawn(follow_clock(app.trust.clone())),
            tokio::spawn(feed::follow(app.clone())),
            tokio::spawn(ship::run(app.clone(), signing)),
            tokio::spawn(ship::beat(app.clone())),
            tokio::spawn(ship::definitions(app.clone())),
        ];
        if app.observer.access.is_some() {
            let hangup = Hangup::listen("the access log");
            tasks.push(tokio::spawn(reopen(app.clone(), hangup)));
        }
        Ok(Self { app, tasks })
    }

    /// Adds a task that ends with the proxy.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Adds a listener for people and their tools.
    pub async fn serve(
        &mut self,
        what: &str,
        address: SocketAddr,
        router: axum::Router,
    ) -> Result<SocketAddr, StartError> {
        let (listener, address) = bind(what, address).await?;
        self.spawn(async move {
            if let Err(e) = axum::serve(listener, router).await {
                tracing::error!(error = %e, "a listener ended");
            }
        });
        Ok(address)
    }

    /// Writes down that the proxy stops, and ships the last events.
    pub async fn finish(&self) {
        let stopped = event::plain(EventType::ProxyStopped, None, EventData::default());
        if let Ok(seq) = self.app.spool.append_outcome(stopped).await {
            // What is not shipped now is shipped by the next start.
            let _ = tokio::time::timeout(SHIP_MAX, self.app.spool.acknowledged(seq)).await;
        }
        self.app.observer.finish().await;
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The access log follows its file's name when SIGHUP says so: logrotate has moved the old one away.
async fn reopen(app: Arc<App>, mut hangup: Hangup) {
    loop {
        hangup.asked().await;
        app.observer.access.iter().for_each(AccessLog::reopen);
    }
}

/// A listener, and where it is.
pub async fn bind(what: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = TcpListener::bind(address).await.map_err(io(&format!("the {what} listener")))?;
    let address = listener.local_addr().map_err(io("a listener's address"))?;
    Ok((listener, address))
}

/// An error of this thing.
pub fn io(what: &str) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.to_owned();
    move |problem| StartError::Io { what, problem }
}

fn private_directory(config: &Config) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir)
}

async fn build(config: Config) -> Result<Arc<App>, StartError> {
    let metrics = Metrics::new()?;
    let has_run = Identity::is_kept(&config);
    let identity = Identity::load_or_enroll(&config).await?;
    let backend =
        Backend::new(config.backend_url.clone(), identity.proxy_id.clone(), identity.proxy_key.clone())?;
    let policy = Policy::new(
        identity.org.clone(),
        identity.bundle_key.clone(),
        backend.clone(),
        config.state_dir.join("policy"),
        (config.staleness.clone(), metrics.bundles_refused.clone()),
    );
    if let Err(e) = policy.load_from_disk() {
        tracing::error!(error = %e, "the policy that was kept is not used");
    }
    if let Err(e) = policy.refresh().await {
        tracing::warn!(error = %e, "the policy cannot be fetched yet");
    }
    let spool =
        Spool::open(&config.state_dir.join("spool"), &identity.source(), config.durability, &config.limits)?;
    let observer = Observer::new(&config, &metrics, &identity.proxy_id).map_err(StartError::Observer)?;
    if has_run && spool.standing().head == Head::default() {
        // Each start writes an event, so its spool is lost, or it ended before the first one.
        spool.set_chain(Chain::Unconfirmed)?;
    }
    let trust = watch::Sender::new(());
    let issuers = Issuers::new(&config.issuers, metrics.entrance.tokens_refused.clone(), &trust)?;
    let live = Live::new(config, identity.redaction_key(), &metrics)?;
    Ok(Arc::new(App {
        holds: Arc::new(Holds::new(live.config.limits.clone(), metrics.holds_refused.clone())),
        bodies: Arc::default(),
        observer,
        schemas: Schemas::default(),
        metrics,
        mcp: Mcp::default(),
        connections: Connections::default(),
        trust,
        draining: watch::Sender::new(false),
        in_flight: AtomicUsize::new(0),
        issuers,
        live: ArcSwap::from_pointee(live),
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
    let data = EventData { reason: Some(env!("CARGO_PKG_VERSION").to_owned()), ..EventData::default() };
    let started = event::plain(EventType::ProxyStarted, None, data);
    let closings = open.into_iter().map(|(_, opened)| event::closing(opened));
    for event in closings.chain([started]) {
        if let Err(e) = app.spool.append_outcome(event).await {
            // It is written as soon as it can be, and no call runs before. What is shipped may make the room.
            tracing::error!(error = %e, "the audit spool cannot be written yet");
        }
    }
    Ok(())
}
