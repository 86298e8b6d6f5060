//! Configuration: as written in YAML, then as used. What is not understood is refused.

use std::path::{Path, PathBuf};

use http::Uri;
use oakallow_policy::RiskLevel;
use oakallow_policy::document::{DocumentError, from_yaml};
use oakallow_policy::id::Name;
use oakallow_policy::wire::Secret;
use serde::Deserialize;

use crate::identity::check_file;
use crate::listen::tls::TlsState;
use crate::observe::access::To;
use crate::pem;
use crate::route::{Route, RouteKind};

mod caution;
pub(crate) mod issuers;
mod limits;
mod listen;
mod observe;
mod routes;
mod upstream;
mod url;

pub use issuers::{Algorithm, Issuer, KeySource, TokenOwner, TokenTenant};
pub use listen::{Address, Clients, DataListener, Identities, Listen, Tls};
pub use observe::Tracing;

use issuers::{WrittenIssuer, issuers};
use listen::{WrittenListen, listen};
use routes::{WrittenRoute, route};

/// The configuration as used.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where this proxy listens.
    pub listen: Listen,
    /// Whose tokens say who calls.
    pub issuers: Vec<Issuer>,
    /// Identity, last verified bundles, spool.
    pub state_dir: PathBuf,
    /// What people call this proxy.
    pub name: Name,
    /// Base URL of the backend, without a trailing slash.
    pub backend_url: String,
    /// For the first start; not needed once the proxy has enrolled.
    pub join_token: Option<Secret>,
    /// When an event counts as stored.
    pub durability: Durability,
    /// Limits.
    pub limits: Limits,
    /// How old a policy may be.
    pub staleness: Staleness,
    /// Where each request leaves a line; `None`: nowhere.
    pub access_log: Option<To>,
    /// Where each request leaves spans; `None`: nowhere.
    pub tracing: Option<Tracing>,
    /// Arguments that are never stored as they are.
    pub redact: Redact,
    /// In order; the first that matches a request takes it.
    pub routes: Vec<std::sync::Arc<Route>>,
}

/// When an event counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Handed to the operating system: survives the death of the process.
    #[default]
    Process,
    /// On the disk: survives a loss of power.
    Power,
}

/// Limits; each refuses clearly when it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Largest request header, all fields together.
    pub header_bytes_max: usize,
    /// Longest time for a whole request header to arrive.
    pub head_read_timeout_s: u64,
    /// How long a connection is kept on which nothing happens.
    pub idle_timeout_s: u64,
    /// Longest time for a whole request body to arrive.
    pub body_read_timeout_s: u64,
    /// How long an agent may leave an answer unread; its call goes on to its outcome then, unheard.
    pub write_timeout_s: u64,
    /// Calls held at one time.
    pub holds_max: usize,
    /// Calls held at one time for one principal.
    pub holds_per_principal_max: usize,
    /// Bytes of memory for calls held at one time: their bodies, and what was read from them.
    pub hold_bytes_max: usize,
    /// The same for one principal.
    pub hold_bytes_per_principal_max: usize,
    /// Bytes of memory for the bodies of requests that are not held.
    pub bodies_bytes_max: usize,
    /// The same for one principal.
    pub bodies_bytes_per_principal_max: usize,
    /// Events waiting to be shipped; beyond it new calls are refused.
    pub spool_events_max: u64,
    /// Bytes of them, likewise.
    pub spool_bytes_max: u64,
    /// Connections at one time.
    pub connections_max: usize,
    /// Requests of HTTP/2 under way at one time over one connection, held calls among them.
    pub streams_per_connection_max: usize,
    /// Released calls sent to the tool servers at one time.
    pub releases_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            header_bytes_max: 64 * 1024,
            head_read_timeout_s: 30,
            // A little more than common clients keep theirs.
            idle_timeout_s: 75,
            body_read_timeout_s: 30,
            write_timeout_s: 30,
            holds_max: 10_000,
            holds_per_principal_max: 1_000,
            hold_bytes_max: 256 * 1024 * 1024,
            hold_bytes_per_principal_max: 64 * 1024 * 1024,
            bodies_bytes_max: 256 * 1024 * 1024,
            bodies_bytes_per_principal_max: 64 * 1024 * 1024,
            spool_events_max: 1_000_000,
            // A million events of the usual size are half of it; arguments may make them 40 times as large.
            spool_bytes_max: 2 * 1024 * 1024 * 1024,
            connections_max: 20_000,
            // The least that RFC 9113 (section 6.5.2) recommends.
            streams_per_connection_max: 100,
            releases_max: 512,
        }
    }
}

/// How long the proxy goes on with a policy that the backend has not confirmed, by risk level.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Staleness {
    /// Low risk.
    pub low_s: u64,
    /// Medium risk.
    pub medium_s: u64,
    /// High risk; bounded by `revocations_s` too.
    pub high_s: u64,
    /// Critical risk: the backend must be there. Three missed confirmations.
    pub critical_s: u64,
    /// How late a revoked key or a kill switch may take effect for calls of high risk.
    pub revocations_s: u64,
}

impl Default for Staleness {
    fn default() -> Self {
        Self { low_s: 24 * 3600, medium_s: 4 * 3600, high_s: 900, critical_s: 60, revocations_s: 300 }
    }
}

impl Staleness {
    /// The age from which calls of this risk are refused, in seconds.
    #[must_use]
    pub fn limit_s(&self, risk: RiskLevel) -> u64 {
        match risk {
            RiskLevel::Low => self.low_s,
            RiskLevel::Medium => self.medium_s,
            RiskLevel::High => self.high_s.min(self.revocations_s),
            RiskLevel::Critical => self.critical_s.min(self.revocations_s),
        }
    }
}

/// What to redact besides what is always redacted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redact {
    /// Member names, any case.
    pub keys: Vec<String>,
    /// JSON pointers (RFC 6901) into the arguments.
    pub pointers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    listen: WrittenListen,
    #[serde(default)]
    issuers: Vec<WrittenIssuer>,
    state_dir: PathBuf,
    #[serde(default)]
    name: Option<Name>,
    backend: WrittenBackend,
    #[serde(default)]
    durability: Durability,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    staleness: Staleness,
    #[serde(default)]
    redact: Redact,
    #[serde(default)]
    access_log: Option<observe::WrittenAccessLog>,
    #[serde(default)]
    tracing: Option<observe::WrittenTracing>,
    routes: Vec<WrittenRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBackend {
    url: String,
    #[serde(default)]
    join_token_file: Option<PathBuf>,
    #[serde(default)]
    join_token_env: Option<String>,
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, DocumentError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| plain(&file, &e.to_string()))?;
        Self::parse(&file, &text)
    }

    /// Reads a text; `file` is only for errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let written: Written = from_yaml(file, text).map_err(without_value)?;
        Self::from_written(written).map_err(|message| refused(file, text, message))
    }

    /// Whether the files that it names are there and fit together; a proxy does not start without them.
    pub fn check_files(&self) -> Result<(), String> {
        for tls in self.listen.data.iter().filter_map(|listener| listener.tls.as_ref()) {
            TlsState::load(tls).map_err(|e| e.to_string())?;
        }
        for issuer in &self.issuers {
            if let KeySource::File(file) = &issuer.keys {
                check_file(file)?;
            }
            if let Some(ca) = &issuer.ca {
                pem::read(ca).and_then(|text| pem::authorities(ca, &text)).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// Reads what is to run in the place of this, without a restart.
    pub fn successor(&self, file: &str, text: &str) -> Result<Self, DocumentError> {
        let next = Self::parse(file, text)?;
        match self.fixed().into_iter().zip(next.fixed()).find(|(now, then)| now != then) {
            None => Ok(Self { join_token: self.join_token.clone(), ..next }),
            Some(((key, _), _)) => {
                let message =
                    format!("`{key}` is not what this proxy runs with: another one takes a restart");
                Err(refused(file, text, message))
            }
        }
    }

    /// What a reload cannot change, by its key. No field is left out by mistake: each is named here.
    fn fixed(&self) -> [(&'static str, String); 9] {
        let Self {
            listen,
            issuers,
            state_dir,
            name,
            backend_url,
            durability,
            routes,
            access_log,
            tracing,
            join_token: _,
            limits: _,
            staleness: _,
            redact: _,
        } = self;
        let stdio = routes.iter().any(|r| r.kind == RouteKind::Stdio);
        [
            ("listen", format!("{listen:?}")),
            ("issuers", format!("{issuers:?}")),
            ("state_dir", format!("{state_dir:?}")),
            ("name", name.to_string()),
            ("url", backend_url.clone()),
            ("durability", format!("{durability:?}")),
            ("routes", format!("stdio {stdio}")),
            ("access_log", format!("{access_log:?}")),
            ("tracing", format!("{tracing:?}")),
        ]
    }

    fn from_written(w: Written) -> Result<Self, String> {
        let shown = url::shown("backend", &w.backend.url);
        let url: Uri = w.backend.url.parse().map_err(|_| format!("`{shown}` is not a URL"))?;
        if url.scheme_str().is_none_or(|s| s != "http" && s != "https") || url.host().is_none() {
            return Err(format!("`{shown}`: the backend's URL starts with http:// or https://"));
        }
        if url.authority().is_some_and(|a| a.as_str().contains('@')) || url.query().is_some() {
            return Err(format!("`{shown}`: the backend's URL has no user, no password and no query"));
        }
        if !url::has_fair_port(&url) {
            return Err("`url`: the port of the backend is 1 to 65535".to_owned());
        }
        if w.routes.is_empty() {
            return Err("`routes` is empty: nothing would be forwarded".to_owned());
        }
        let issuers = issuers(w.issuers)?;
        let routes = w.routes.into_iter().map(route).collect::<Result<Vec<_>, _>>()?;
        limits::check(&w.limits)?;
        routes.iter().try_for_each(|r| limits::check_route(r))?;
        routes::check(&routes, &issuers)?;
        let stdio = routes.iter().any(|r| r.kind == RouteKind::Stdio);
        Ok(Self {
            listen: listen(w.listen, &routes, &issuers)?,
            issuers,
            state_dir: w.state_dir,
            name: w.name.map_or_else(default_name, Ok)?,
            join_token: join_token(&w.backend)?,
            backend_url: w.backend.url.trim_end_matches('/').to_owned(),
            durability: w.durability,
            limits: w.limits,
            staleness: w.staleness,
            redact: w.redact,
            access_log: observe::access_log(w.access_log, stdio)?,
            tracing: observe::tracing(w.tracing, |name| std::env::var(name).ok())?,
            routes,
        })
    }
}

/// The first word in backticks says where.
fn refused(file: &str, text: &str, message: String) -> DocumentError {
    let word = message.split('`').nth(1).unwrap_or_default();
    let at = text.lines().enumerate().find_map(|(i, l)| l.find(word).map(|c| (i + 1, c + 1)));
    DocumentError { file: file.to_owned(), at, message, hint: None }
}

/// A text in the place of something else may be a secret, and the place is told anyhow.
fn without_value(mut error: DocumentError) -> DocumentError {
    let (begin, end) = (error.message.find(": string \""), error.message.rfind("\", expected"));
    if let (Some(begin), Some(end)) = (begin, end) {
        error.message.replace_range(begin..=end, ": a text");
    }
    error
}

fn plain(file: &str, message: &str) -> DocumentError {
    DocumentError { file: file.to_owned(), at: None, message: message.to_owned(), hint: None }
}

fn default_name() -> Result<Name, String> {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    Name::new(if host.is_empty() { "proxy" } else { &host }).map_err(|e| e.to_string())
}

fn join_token(w: &WrittenBackend) -> Result<Option<Secret>, String> {
    let text = match (&w.join_token_file, &w.join_token_env) {
        (Some(_), Some(_)) => {
            return Err("`join_token_file` and `join_token_env` exclude each other".to_owned());
        }
        // A proxy that has enrolled does not need it any more, so a missing file is not a fault yet.
        (Some(path), None) => std::fs::read_to_string(path).ok(),
        (None, Some(variable)) => std::env::var(variable).ok(),
        (None, None) => None,
    };
    let text = text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
    // The text itself may be a secret of another kind.
    if text.as_ref().is_some_and(|t| !t.starts_with("oak_join_")) {
        return Err("the join token does not start with `oak_join_`: is it an error of the backend, or another secret?".to_owned());
    }
    Ok(text.map(Secret::new))
}
