//! Ships the spool to the backend: in order, at least once, until it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use oakallow_policy::audit::Head;
use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::wire::{Heartbeat, Purpose, Signed};

use crate::app::App;
use crate::backend::BackendError;
use crate::spool::{Chain, Kept, Spool, SpoolError};

/// Events in one request.
const BATCH_MAX: usize = 500;
/// Their bytes: half of what the backend takes. Callers choose how large an event is.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What a signed head takes up, and what stands around it.
const HEAD_BYTES: usize = 1024;
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);

/// How long the first batch may take; what is not shipped by then goes later.
const FIRST_MAX: Duration = Duration::from_secs(3);

/// Ships one batch before calls are taken: whether the backend knows another story of this proxy is heard
/// here, if it can be reached.
pub async fn first(app: &App, key: &SigningKey) {
    match tokio::time::timeout(FIRST_MAX, ship(app, key)).await {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => tracing::warn!(problem, "audit events cannot be shipped yet"),
        Err(_) => tracing::warn!("the backend takes long to take audit events"),
    }
}

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
    let head = Head { seq: last.seq, hash: hex(&sha256(&last.bytes)) };
    let head = Signed::seal(Purpose::Head, &head, &app.identity.proxy_id, key).map_err(|e| e.to_string())?;
    let batch = batch(&events, &head).map_err(|e| e.to_string())?;
    let spool = app.spool.clone();
    let ack = match app.backend.audit(batch).await {
        Ok(ack) => ack,
        Err(e) if contradicts(&e) => return Err(contradicted(spool, e).await),
        Err(e) => return Err(e.to_string()),
    };
    let acknowledged = tokio::task::spawn_blocking(move || {
        spool.set_chain(Chain::Good)?;
        spool.acknowledge(ack.acknowledged_seq)
    });
    acknowledged.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

/// Stops the calls, in this process and in those after it; what to say of it.
async fn contradicted(spool: Spool, e: BackendError) -> String {
    match tokio::task::spawn_blocking(move || spool.set_chain(Chain::Contradicted)).await {
        Ok(Ok(true)) => {
            tracing::error!(error = %e, "the backend does not take this proxy's events: calls are refused until it does, or an operator enrols it anew");
        }
        Ok(Ok(false)) => {}
        // Tried again with the next batch that is refused.
        Ok(Err(mark)) => {
            tracing::error!(error = %mark, "that the backend does not take this proxy's events is forgotten by a restart");
        }
        Err(ended) => tracing::error!(error = %ended, "a task of the audit spool broke off"),
    }
    e.to_string()
}

/// An [`AuditBatch`] as it is written, of events that are written already.
///
/// [`AuditBatch`]: oakallow_policy::wire::AuditBatch
fn batch(events: &[Kept], head: &Signed) -> serde_json::Result<Vec<u8>> {
    let bytes: usize = events.iter().map(|kept| kept.bytes.len() + 1).sum();
    let mut batch = Vec::with_capacity(bytes + HEAD_BYTES);
    batch.extend_from_slice(br#"{"events":["#);
    for (at, kept) in events.iter().enumerate() {
        if at > 0 {
            batch.push(b',');
        }
        batch.extend_from_slice(&kept.bytes);
    }
    batch.extend_from_slice(br#"],"head":"#);
    serde_json::to_writer(&mut batch, head)?;
    batch.push(b'}');
    Ok(batch)
}

/// Whether the backend will not take this chain however often it is sent: it has another one of this proxy, or
/// another key, or finds an event that it cannot read. Calls whose record goes nowhere do not run.
fn contradicts(e: &BackendError) -> bool {
    match e {
        BackendError::Refused(problem) => {
            matches!(problem.status, 400 | 409 | 413 | 422) || problem.code == "bad_signature"
        }
        BackendError::Unreachable(_) => false,
    }
}

/// Tells the backend what tool servers say their tools are, until the task is dropped.
pub async fn definitions(app: Arc<App>) {
    let definitions = &app.policy.definitions;
    let mut back_off = BACK_OFF_MIN;
    loop {
        let Some(report) = definitions.untold() else {
            definitions.wait().await;
            continue;
        };
        match app.backend.definitions(&report).await {
            Ok(()) => definitions.told(&report),
            // It will not hear these; what differs is distrusted here all the same.
            Err(e @ BackendError::Refused(_)) => {
                tracing::warn!(error = %e, "the backend does not take definitions of tools");
                definitions.told(&report);
            }
            Err(e) => {
                tracing::warn!(error = %e, "definitions of tools cannot be reported yet");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                continue;
            }
        }
        back_off = BACK_OFF_MIN;
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{BackendError, contradicts};

    fn refused(status: u16, code: &str) -> BackendError {
        let problem =
            json!({"type": "about:blank", "title": "t", "status": status, "code": code, "detail": "d"});
        BackendError::Refused(serde_json::from_value(problem).unwrap())
    }

    #[test]
    fn events_that_the_backend_will_not_take_stop_the_calls() {
        for (status, code) in
            [(409, "audit_gap"), (403, "bad_signature"), (400, "invalid_request"), (422, "x")]
        {
            assert!(contradicts(&refused(status, code)), "{status} {code}");
        }
        for (status, code) in [(401, "key_revoked"), (403, "forbidden"), (404, "not_found")] {
            assert!(!contradicts(&refused(status, code)), "{status} {code}");
        }
        assert!(!contradicts(&BackendError::Unreachable("it answers 502".to_owned())));
    }
}
