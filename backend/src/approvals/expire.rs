//! Deadlines: expires what is due when it is due, and removes what is kept no longer.
//!
//! Nothing depends on this for safety: every step checks the deadline itself. It is here so that those
//! who wait are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use tokio::sync::broadcast::error::RecvError;

use super::{ms, settle};
use crate::feed::Change;
use crate::state::App;
use crate::store::approvals::{self, Step};
use crate::store::{StoreError, arguments, idempotency, redemptions, sessions};

/// Expired in one transaction at most; the next one follows at once.
const BATCH: u32 = 200;
/// How often old rows are removed.
const CLEAN_EVERY_MS: u64 = 60_000;
/// A key that was not used for this long stands for nothing any more.
const KEY_KEPT_MS: u64 = 24 * 3600 * 1_000;

/// Runs until the backend stops.
pub(crate) async fn run(app: Arc<App>) {
    let mut clean_at = 0;
    let mut changes = app.feed.subscribe();
    loop {
        if let Err(error) = pass(&app, &mut clean_at).await {
            tracing::error!(%error, "expiring approvals failed; it will be tried again");
        }
        let pause = pause(&app).await;
        tokio::select! {
            () = app.stopped() => return,
            () = tokio::time::sleep(pause) => {}
            // A new approval may have an earlier deadline.
            () = approval_changed(&mut changes) => {}
        }
    }
}

async fn approval_changed(changes: &mut tokio::sync::broadcast::Receiver<crate::feed::FeedItem>) {
    loop {
        match changes.recv().await {
            Ok(item) if !matches!(item.change, Change::Approval { .. }) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Until the next deadline, and at most the sweep interval: a clock may be set.
async fn pause(app: &Arc<App>) -> Duration {
    let longest = app.config.sweep_interval;
    let next: Result<Option<UnixMs>, StoreError> = async {
        let mut db = app.db.read_across().await?;
        approvals::next_deadline(&mut db).await
    }
    .await;
    match next {
        Ok(Some(at)) => Duration::from_millis(at.saturating_sub(app.now()).max(1)).min(longest),
        Ok(None) | Err(_) => longest,
    }
}

async fn pass(app: &Arc<App>, clean_at: &mut UnixMs) -> Result<(), StoreError> {
    while expire_due(app).await? == BATCH as usize {}
    let now = app.now();
    if now >= *clean_at {
        *clean_at = now + CLEAN_EVERY_MS;
        clean(app, now).await?;
    }
    Ok(())
}

async fn expire_due(app: &Arc<App>) -> Result<usize, StoreError> {
    let due = {
        let mut db = app.db.read_across().await?;
        approvals::due(&mut db, app.now(), BATCH).await?
    };
    let found = due.len();
    let mut by_org: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for (org, id) in due {
        let org = Name::new(&org).map_err(|e| StoreError::corrupt("approvals", "org", &id, &e))?;
        by_org.entry(org).or_default().push(id);
    }
    for (org, ids) in by_org {
        let mut write = app.write(&org).await?;
        for id in ids {
            settle(app, &mut write, (&org, &id), Step::Expire, None).await?;
        }
        write.commit().await?;
    }
    Ok(found)
}

async fn clean(app: &Arc<App>, now: UnixMs) -> Result<(), StoreError> {
    let mut write = app.write_across().await?;
    let kept = ms(app.config.approvals.arguments_kept);
    arguments::delete_closed(&mut write, now.saturating_sub(kept)).await?;
    idempotency::delete_unused(&mut write, now.saturating_sub(KEY_KEPT_MS)).await?;
    redemptions::delete_past(&mut write, now).await?;
    sessions::delete_past(&mut write, now).await?;
    write.commit().await
}
