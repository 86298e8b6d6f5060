//! The stream of events from the backend: changes of the policy, decisions on approvals.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use oakallow_policy::wire::{ApprovalState, Signed};
use serde::Deserialize;

use crate::app::App;

/// The backend says something at least every 20 s; three times that and the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Largest message; an approval's state is far smaller.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

#[derive(Deserialize)]
struct Version {
    version: u64,
    tenant: Option<oakallow_policy::Name>,
}

/// Follows the stream until the task is dropped, reconnecting with back-off.
pub async fn follow(app: Arc<App>) {
    let mut last_id: Option<String> = None;
    let mut back_off = BACK_OFF_MIN;
    loop {
        match app.backend.events(last_id.as_deref()).await {
            Ok(response) => {
                app.metrics.feed_connected.set(1);
                reconcile(&app).await;
                if read(&app, response, &mut last_id).await {
                    back_off = BACK_OFF_MIN;
                }
            }
            Err(e) => tracing::warn!(error = %e, "the backend's events cannot be read"),
        }
        app.metrics.feed_connected.set(0);
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// What happened while nobody listened: the policy, and the approvals that calls wait for.
async fn reconcile(app: &App) {
    if let Err(e) = app.policy.refresh().await {
        tracing::warn!(error = %e, "the policy cannot be refreshed");
    }
    for ids in app.holds.ids().chunks(1_000) {
        match app.backend.approval_states(ids.to_vec()).await {
            Ok(states) => states.approvals.into_iter().for_each(|state| app.holds.update(state)),
            Err(e) => tracing::warn!(error = %e, "the state of held approvals cannot be read"),
        }
    }
}

/// Reads messages until the connection ends; whether there was one at all.
async fn read(app: &App, response: reqwest::Response, last_id: &mut Option<String>) -> bool {
    let mut chunks = response.bytes_stream();
    let mut splitter = crate::sse::Splitter::new(MESSAGE_BYTES_MAX);
    let mut any = false;
    loop {
        let chunk = match tokio::time::timeout(SILENCE_MAX, chunks.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(_)) | None) | Err(_) => return any,
        };
        for raw in splitter.push(&chunk) {
            let message = crate::sse::Message::parse(&raw);
            handle(app, message.event.as_deref().unwrap_or(""), &message.data).await;
            if message.id.is_some() {
                *last_id = message.id;
            }
            any = true;
        }
        if splitter.is_overfull() {
            return any;
        }
    }
}

async fn handle(app: &App, event: &str, data: &str) {
    let handled = match event {
        "version" => version(app, data).await,
        "current" => current(app, data).await,
        "approval" => serde_json::from_str::<ApprovalState>(data)
            .map(|state| app.holds.update(state))
            .map_err(|e| e.to_string()),
        // A comment, or something that a newer backend says to newer proxies.
        _ => Ok(()),
    };
    if let Err(problem) = handled {
        tracing::warn!(event, problem, "an event from the backend is not accepted");
    }
}

async fn version(app: &App, data: &str) -> Result<(), String> {
    let changed: Version = serde_json::from_str(data).map_err(|e| e.to_string())?;
    match changed.tenant {
        Some(tenant) => {
            app.policy.tenant_changed(&tenant, changed.version).await;
            Ok(())
        }
        None => app.policy.refresh().await.map_err(|e| e.to_string()),
    }
}

async fn current(app: &App, data: &str) -> Result<(), String> {
    let signed: Signed = serde_json::from_str(data).map_err(|e| e.to_string())?;
    if app.policy.confirm(&signed).map_err(|e| e.to_string())? {
        return Ok(());
    }
    app.policy.refresh_all().await.map_err(|e| e.to_string())?;
    app.policy.confirm(&signed).map(drop).map_err(|e| e.to_string())
}
