//! What looks after a route's way to its tool server, beside the calls: names looked up again, files read
//! again, endpoints asked whether they are well, idle connections closed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use oakallow_policy::canonical::sha256;

use super::Reach;
use super::endpoint::Endpoint;
use super::health::Unwell;
use super::link::{HealthCheck, Inject, Link, Place, TlsFiles};
use crate::causes::Causes;
use crate::watch::{Seen, Watch};

/// Idle connections outlive their time by this at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Changed files are in force after this.
const READ_EVERY: Duration = Duration::from_secs(2);
/// Of the body of an answer to a health check, which says nothing.
const CHECK_BYTES_MAX: usize = 8 * 1024;
/// Between two tries to connect to an endpoint that is out: growing, from and to.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Goes on until it is dropped.
pub(super) async fn keep(reach: Arc<Reach>) {
    let each = reach.endpoints.iter().map(|endpoint| {
        let names = names(endpoint, reach.link.dns_refresh, &reach);
        join(names, health(endpoint, &reach))
    });
    join(join(join_all(each), files(&reach)), sweep(&reach)).await;
}

async fn sweep(reach: &Reach) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        reach.endpoints.iter().for_each(|endpoint| endpoint.pool.sweep());
    }
}

/// Looks a name up, again and again. A resolver that fails changes nothing.
async fn names(endpoint: &Endpoint, every: Duration, reach: &Reach) {
    if !matches!(endpoint.place, Place::Named(..)) {
        return;
    }
    loop {
        match endpoint.look_up().await {
            Ok(found) => drop(endpoint.learn(found)),
            Err(e) => {
                reach.metrics.lookup_failures.inc();
                let endpoint = endpoint.place.to_string();
                tracing::warn!(error = %e, endpoint, "the name of a tool server cannot be looked up; what was known stays");
            }
        }
        tokio::time::sleep(every).await;
    }
}

async fn health(endpoint: &Endpoint, reach: &Reach) {
    match &reach.link.health_check {
        Some(check) => checks(endpoint, check, reach).await,
        // The only way there is always tried: refusing without trying would help nobody.
        None if reach.endpoints.len() == 1 => {}
        None => probes(endpoint).await,
    }
}

/// No call pays for finding out that an endpoint is back.
async fn probes(endpoint: &Endpoint) {
    loop {
        endpoint.health.fell.notified().await;
        let (mut pause, longest) = PROBE_PAUSE;
        while endpoint.health.is_out() {
            tokio::time::sleep(pause).await;
            match endpoint.probe().await {
                Ok(()) => endpoint.health.back(),
                Err(e) => tracing::debug!(error = %Causes(&e), "an endpoint is still out"),
            }
            pause = (pause * 2).min(longest);
        }
    }
}

async fn checks(endpoint: &Endpoint, check: &HealthCheck, reach: &Reach) {
    loop {
        tokio::time::sleep(check.interval).await;
        let asked = tokio::time::timeout(check.interval, is_well(endpoint, check, reach)).await;
        let result = asked.unwrap_or(Err(Unwell::Late));
        endpoint.health.checked(result, (check.unhealthy_after, check.healthy_after));
    }
}

/// Not a call, so it needs no permit: nobody's arguments, no credential, and always the same address.
async fn is_well(endpoint: &Endpoint, check: &HealthCheck, reach: &Reach) -> Result<(), Unwell> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    let uri = reach.at(&check.path).map_err(|_| Unwell::NoAnswer)?;
    request.headers_mut().insert("user-agent", http::HeaderValue::from_static("oakallow-health-check"));
    let lease = endpoint.lease().await?;
    let response = reach.over(lease, request, &uri, 0).await.map_err(|_| Unwell::NoAnswer)?;
    let status = response.status();
    // To its end, so that the connection can be used again; one that goes on and on is not worth that.
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        if bytes > CHECK_BYTES_MAX {
            break;
        }
    }
    if status.is_success() { Ok(()) } else { Err(Unwell::Status(status)) }
}

/// What was in the files of a route's configuration.
pub(super) struct Files {
    tls: Vec<[u8; 32]>,
    secret: Vec<[u8; 32]>,
}

impl Files {
    /// To be asked before the files are used: what changes in between is noticed later.
    pub(super) fn of(link: &Link) -> Self {
        Self { tls: digests(&tls_files(link)), secret: digests(&secret_file(link)) }
    }
}

fn tls_files(link: &Link) -> Vec<PathBuf> {
    link.tls.iter().flat_map(TlsFiles::files).cloned().collect()
}

fn secret_file(link: &Link) -> Vec<PathBuf> {
    link.inject.iter().filter_map(Inject::file).cloned().collect()
}

/// Of what is in the files; one that cannot be read is like an empty one.
fn digests(files: &[PathBuf]) -> Vec<[u8; 32]> {
    files.iter().map(|file| sha256(&std::fs::read(file).unwrap_or_default())).collect()
}

/// Reads certificates and secrets again when their files have changed, and when SIGHUP asks: nothing else tells that
/// the system's authorities have changed. A bad file changes nothing.
async fn files(reach: &Arc<Reach>) {
    let tls = async {
        if reach.link.tls.is_some() {
            let known = reach.files.tls.clone();
            changes(reach, tls_files(&reach.link), known, Reach::renew_tls).await;
        }
    };
    let secret = async {
        let file = secret_file(&reach.link);
        if !file.is_empty() {
            changes(reach, file, reach.files.secret.clone(), Reach::renew_credential).await;
        }
    };
    join(tls, secret).await;
}

async fn changes(reach: &Arc<Reach>, files: Vec<PathBuf>, known: Vec<[u8; 32]>, renew: fn(&Reach)) {
    let mut watch = Watch::new("the files of a tool server", READ_EVERY);
    let mut seen = Seen::of(known);
    loop {
        let look = watch.next().await;
        let read = files.clone();
        // Reading may wait for a disk.
        let Ok(now) = tokio::task::spawn_blocking(move || digests(&read)).await else { return };
        if seen.is_news(&now, look) {
            let reach = reach.clone();
            if tokio::task::spawn_blocking(move || renew(&reach)).await.is_err() {
                return;
            }
        }
    }
}
