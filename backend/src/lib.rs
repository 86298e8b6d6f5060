//! The control plane: keys and configuration, decisions, approvals, execution tokens, the audit log, the
//! protocol that proxies speak, and the pages that people use.
//!
//! In scope: everything that needs the org's whole truth. Out of scope: the path of a tool call itself;
//! that is the proxy's, which goes on deciding when this is away.
//!
//! A request goes `http` (id, limits, headers) → `auth` (who) → `extract` (what) → `routes/<noun>`
//! (decide and answer) → `store/<noun>` (SQL). A change is one [`store::Write`]: rows, audit event, new
//! policy version and feed line are committed together, then announced.

mod answer;
mod approvals;
mod auth;
mod bootstrap;
mod clock;
mod config;
mod dashboard;
mod data_dir;
mod decide;
mod definitions;
mod distribute;
mod drafts;
mod error;
mod extract;
mod feed;
mod http;
mod keys;
mod ledger;
mod metrics;
mod record;
mod routes;
mod schema;
mod secrets;
mod serve;
mod session;
mod state;
mod store;
mod tail;
mod vault;
mod viewer;

#[cfg(test)]
#[path = "../tests/support/postgres.rs"]
mod test_postgres;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use approvals::ApprovalLimits;
pub use bootstrap::{Bootstrap, BootstrapError};
pub use clock::Clock;
pub use config::{Config, Database};
pub use data_dir::DataDirError;

/// Checking the whole record.
pub mod audit {
    pub use crate::ledger::{Verified, VerifyError, verify, verify_in};
}

/// What may be a tool's parameter schema.
pub mod parameter_schema {
    pub use crate::schema::check;
}

use clock::Random;
use oakallow_policy::timestamp::UnixMs;
use state::App;
use store::{Db, StoreError};
use tail::Tail;
use vault::Vault;

/// The API, whose every noun brings its endpoints (`routes/<noun>.rs`), and the pages.
fn router(app: Arc<App>) -> Router {
    routes::api()
        .merge(dashboard::router())
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::wrong_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), http::around))
        .with_state(app)
}

/// Work that goes on beside the requests, until the backend stops.
fn background(app: &Arc<App>, tail: Tail) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(tail.run(Arc::clone(app)));
    tasks.spawn(approvals::expire::run(Arc::clone(app)));
    tasks.spawn(every(Arc::clone(app), Duration::from_secs(60), |app| async move {
        keys::flush_usage(&app).await
    }));
    tasks.spawn(every(Arc::clone(app), Duration::from_secs(3600), |app| async move {
        let mut write = app.write_across().await?;
        store::feed::trim(&mut write, app.now().saturating_sub(FEED_KEPT_MS)).await?;
        write.commit().await
    }));
    tasks
}

/// A proxy that was away for longer starts over from the bundle.
const FEED_KEPT_MS: u64 = 24 * 3600 * 1000;

/// Repeats a piece of work until the backend stops. A failure is logged; the next turn tries again.
async fn every<F, E>(app: Arc<App>, period: Duration, work: impl Fn(Arc<App>) -> F)
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = app.stopped() => return,
        }
        if let Err(error) = work(Arc::clone(&app)).await {
            tracing::error!(%error, "background work failed");
        }
    }
}

/// Why a backend does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("cannot listen on {at}: {cause}")]
    Listen { at: SocketAddr, cause: std::io::Error },
    #[error("`{0}` is not how people reach it: that is http[s]://HOST[:PORT], and nothing more")]
    PublicUrl(String),
    #[error("the database: {0}")]
    Store(String),
    #[error("the vault: {0}")]
    Vault(String),
    #[error("the metrics: {0}")]
    Metrics(String),
}

/// A backend that serves. Dropping it aborts it; [`Running::shutdown`] ends it in good order.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    app: Arc<App>,
    server: JoinHandle<()>,
    tasks: JoinSet<()>,
    /// Last: the directory is free once nothing of this uses it.
    _lock: Option<File>,
}

/// The pages are at `/`, and the `Host` and `Origin` of requests are held against this.
fn origin(public_url: &str) -> Result<String, StartError> {
    let refused = || StartError::PublicUrl(public_url.to_owned());
    let url = url::Url::parse(public_url).map_err(|_| refused())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !bare || !nobody {
        return Err(refused());
    }
    Ok(url.origin().ascii_serialization())
}

/// Starts a backend; it serves when this returns.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let lock = data_dir::take(&config.data_dir, config.alone)?;
    let listen = config.listen;
    let at = |cause| StartError::Listen { at: listen, cause };
    let listener = TcpListener::bind(listen).await.map_err(at)?;
    let addr = listener.local_addr().map_err(at)?;
    let store = |e: StoreError| StartError::Store(e.to_string());
    let db = Db::open(&config.data_dir, &config.database).await.map_err(store)?;
    let key_file = config.key_file.clone().unwrap_or_else(|| config.data_dir.join(vault::KEY_FILE));
    let vault = Vault::open(&key_file, Random).map_err(|e| StartError::Vault(e.to_string()))?;
    must_belong(&db, &vault, config.clock.now_ms()).await?;
    let tail = Tail::begin(&db).await.map_err(store)?;
    let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://localhost:{}", addr.port()));
    let app = Arc::new(App {
        public_url: origin(&public_url)?,
        clock: config.clock.clone(),
        config,
        db,
        random: Random,
        feed: feed::Feed::new(),
        vault,
        rulesets: decide::Rulesets::new(),
        validators: schema::Validators::new(),
        usage: keys::Usage::default(),
        metrics: metrics::Metrics::new().map_err(|e| StartError::Metrics(e.to_string()))?,
        stopping: watch::Sender::new(false),
    });
    let tasks = background(&app, tail);
    let server = tokio::spawn(serve::serve(listener, Arc::clone(&app), router(Arc::clone(&app))));
    Ok(Running { addr, app, server, tasks, _lock: lock })
}

/// A database is opened with one key file: what another one seals, nobody else opens.
async fn must_belong(db: &Db, vault: &Vault, now: UnixMs) -> Result<(), StartError> {
    let belongs = async {
        let mut tx = db.begin("").await?;
        let belongs = store::vault_keys::claim(&mut tx, &vault.fingerprint(), now).await?;
        tx.commit().await?;
        Ok::<_, StoreError>(belongs)
    };
    match belongs.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(StartError::Vault(
            "this database belongs to another key file: all backends on one database share one".to_owned(),
        )),
        Err(e) => Err(StartError::Store(e.to_string())),
    }
}

/// Brings the schema of a database up to date, as [`start`] does by itself.
pub async fn migrate(data_dir: &Path, database: &Database) -> Result<(), StartError> {
    let _lock = data_dir::take(data_dir, false)?;
    let db = Db::open(data_dir, database).await.map_err(|e| StartError::Store(e.to_string()))?;
    db.close().await;
    Ok(())
}

impl Running {
    /// Stops taking requests, ends streams and long polls, lets the rest finish within
    /// [`Config::shutdown_grace`], and closes the database.
    pub async fn shutdown(mut self) {
        self.app.stopping.send_replace(true);
        if tokio::time::timeout(self.app.config.shutdown_grace, &mut self.server).await.is_err() {
            tracing::warn!("requests were cut off by the shutdown");
            self.server.abort();
        }
        while self.tasks.join_next().await.is_some() {}
        if let Err(error) = keys::flush_usage(&self.app).await {
            tracing::error!(%error, "the last use of keys was not written");
        }
        self.app.db.close().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}
