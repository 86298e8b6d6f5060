//! Ships the spool to the backend: in order, at least once, until it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use oakallow_policy::audit::Head;
use oakallow_policy::canonical::{hex, json_bytes, sha256};
use oakallow_policy::wire::{AuditBatch, Heartbeat, Purpose, Signed};

use crate::app::App;
use crate::spool::SpoolError;

/// Events in one request.
const BATCH_MAX: usize = 500;
/// Their bytes: half of what the backend takes. Callers choose how large an event is.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);

/// Ships until the task is dropped.
pub async fn run(app: Arc<App>, key: SigningKey) {
    let mut changes = app.spool.subscribe();
    let mut back_off = BACK_OFF_MIN;
    loop {
        if changes.wait_for(|s| s.depth() > 0).await.is_err() {
            return;
        }
        match ship(&app, &key).await {
            Ok(()) => back_off = BACK_OFF_MIN,
            Err(problem) => {
                app.metrics.ship_failures.inc();
                tracing::warn!(problem, "audit events cannot be shipped yet");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
        }
    }
}

/// Ships one batch.
async fn ship(app: &App, key: &SigningKey) -> Result<(), String> {
    let spool = app.spool.clone();
    let events = tokio::task::spawn_blocking(move || spool.unacknowledged(BATCH_MAX, BATCH_BYTES_MAX))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e: SpoolError| e.to_string())?;
    let Some(last) = events.last() else { return Err("the spool misses events".to_owned()) };
    let bytes = json_bytes(last).map_err(|e| e.to_string())?;
    let head = Head { seq: last.seq, hash: hex(&sha256(&bytes)) };
    let head = Signed::seal(Purpose::Head, &head, &app.identity.proxy_id, key).map_err(|e| e.to_string())?;
    let ack = app.backend.audit(&AuditBatch { events, head }).await.map_err(|e| e.to_string())?;
    app.spool.acknowledge(ack.acknowledged_seq).map_err(|e| e.to_string())
}

/// Tells the backend how this proxy is, until the task is dropped.
pub async fn beat(app: Arc<App>) {
    loop {
        let standing = app.spool.standing();
        let beat = Heartbeat {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy_version: app.policy.version(),
            spool_depth: standing.depth(),
            head: standing.head,
            held_calls: app.holds.count() as u64,
        };
        if let Err(e) = app.backend.heartbeat(&beat).await {
            tracing::debug!(error = %e, "no heartbeat");
        }
        tokio::time::sleep(HEARTBEAT_EVERY).await;
    }
}
