//! Watching approvals: list, one (with a long poll), the stream of changes, and a proxy's question after
//! a reconnect.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream;
use http::HeaderMap;
use oakallow_policy::id::Name;
use oakallow_policy::wire::{ApprovalState, ApprovalStates, ApprovalStatesRequest, ApprovalStatus};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::ApprovalView;
use crate::answer::Json;
use crate::approvals::decide;
use crate::auth::ProxyIdentity;
use crate::error::ApiError;
use crate::extract::{Body, Page, Params, Segment, decode_cursor, page_limit};
use crate::feed::{Change, FeedItem};
use crate::state::App;
use crate::store::approvals::{self, Approval, Filter};
use crate::store::{StoreError, arguments, feed, orgs};
use crate::viewer::Viewer;

/// Below the limit of a request, and below what clients and middleboxes wait.
const WAIT_S_MAX: u64 = 50;
/// Ids that a proxy may ask about at once.
const IDS_MAX: usize = 1_000;
/// Lines of the feed read at a time.
const FEED_PAGE: u32 = 500;
/// Silence that intermediaries take for a dead connection is longer than this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    status: Option<ApprovalStatus>,
    tenant: Option<Name>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /v1/approvals`: newest first.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ApprovalView>>, ApiError> {
    let before = decode_cursor(params.cursor.as_deref())?;
    let mut filter = Filter {
        status: params.status,
        tenant: params.tenant,
        before: (!before.is_empty()).then_some(before),
        ..Filter::default()
    };
    viewer.narrow(&mut filter)?;
    let limit = page_limit(params.limit);
    let mut db = app.db.read(viewer.org()).await?;
    let rows = approvals::list(&mut db, viewer.org(), &filter, limit + 1).await?;
    let now = app.now();
    Ok(Json(Page::new(rows, limit, |a| a.id.clone()).map(|a| ApprovalView::new(a, now))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitParams {
    /// Seconds to wait for a decision.
    wait: Option<u64>,
}

/// `GET /v1/approvals/{id}`: where it stands; with `wait`, once it is no longer pending or the time is
/// up. Eligible deciders see the exact arguments.
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Segment(id): Segment,
    Params(params): Params<WaitParams>,
) -> Result<Json<ApprovalView>, ApiError> {
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(WAIT_S_MAX));
    // Before the first look, so that no change falls between.
    let mut changes = app.feed.subscribe();
    let until = Instant::now() + wait;
    let approval = loop {
        let approval = seen(&app, &viewer, &id).await?;
        // After the look: who may not see it any more does not, be it the first look.
        if !wait.is_zero() {
            viewer.must_be_in_force(&app).await?;
        }
        let open = approval.status == ApprovalStatus::Pending && !approval.is_due(app.now());
        if !open || Instant::now() >= until {
            break approval;
        }
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = app.stopped() => break approval,
            () = change_of(&mut changes, &id) => {}
        }
    };
    let parameters = exact_for(&app, &viewer, &approval).await?;
    let mut view = ApprovalView::new(approval, app.now());
    view.parameters = parameters;
    Ok(Json(view))
}

/// The approval, if this viewer may see it; what may not be seen does not exist.
async fn seen(app: &App, viewer: &Viewer, id: &str) -> Result<Approval, ApiError> {
    let mut db = app.db.read(viewer.org()).await?;
    approvals::find(&mut db, viewer.org(), id)
        .await?
        .filter(|approval| viewer.may_see(approval))
        .ok_or_else(|| ApiError::not_found("approval", id))
}

async fn change_of(changes: &mut Receiver<FeedItem>, id: &str) {
    loop {
        match changes.recv().await {
            Ok(FeedItem { change: Change::Approval { state, .. }, .. }) if state.id == id => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The exact arguments, for an eligible decider, until they are deleted.
async fn exact_for(
    app: &App,
    viewer: &Viewer,
    approval: &Approval,
) -> Result<Option<serde_json::Value>, ApiError> {
    let Some(decider) = viewer.decider(app).await? else { return Ok(None) };
    let mut db = app.db.read(&approval.org).await?;
    let settings = orgs::settings(&mut db, &approval.org).await?;
    if decide::eligible(approval, &decider, settings.approver_keys_decide_high_risk).is_err() {
        return Ok(None);
    }
    let Some(sealed) = arguments::find(&mut db, (&approval.org, &approval.id)).await? else {
        return Ok(None);
    };
    let plain = app
        .vault
        .open_arguments(&mut db, &approval.org, &approval.id, &sealed)
        .await
        .map_err(|e| ApiError::internal(&e))?;
    serde_json::from_slice(&plain).map(Some).map_err(|e| ApiError::internal(&e))
}

/// `POST /v1/proxies/{id}/approvals`: what became of these?
pub(crate) async fn states(
    State(app): State<Arc<App>>,
    proxy: ProxyIdentity,
    Segment(id): Segment,
    Body(request): Body<ApprovalStatesRequest>,
) -> Result<Json<ApprovalStates>, ApiError> {
    proxy.must_be(&id)?;
    if request.ids.len() > IDS_MAX {
        return Err(ApiError::invalid_value("/ids", format!("At most {IDS_MAX} ids at once.")));
    }
    let now = app.now();
    let mut db = app.db.read(proxy.credential.org()).await?;
    let mut states = Vec::with_capacity(request.ids.len());
    for id in &request.ids {
        let found = approvals::find(&mut db, proxy.credential.org(), id).await?;
        let served = found.filter(|a| {
            proxy.proxy.serves_audience(&a.audience) && proxy.proxy.serves_tenant(a.tenant.as_deref())
        });
        states.extend(served.map(|a| {
            let due = a.is_due(now);
            let state = a.state();
            if due { ApprovalState { status: ApprovalStatus::Expired, ..state } } else { state }
        }));
    }
    Ok(Json(ApprovalStates { approvals: states }))
}

/// `GET /v1/approvals/events`: each change as a server-sent event `approval`; resumes after
/// `Last-Event-ID`.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    viewer.narrow(&mut Filter::default())?;
    let changes = app.feed.subscribe();
    let resume = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let after = match resume {
        Some(after) => after,
        None => feed::last_seq(&mut app.db.read(viewer.org()).await?, viewer.org()).await?,
    };
    let watch = Watch { app, viewer, changes, after, ready: VecDeque::new() };
    let stream = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok(event), watch))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// One listener: reads the feed's table from where it is, whenever there is something new.
struct Watch {
    app: Arc<App>,
    viewer: Viewer,
    changes: Receiver<FeedItem>,
    after: i64,
    ready: VecDeque<Event>,
}

impl Watch {
    /// The next event; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.read().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "a stream of approvals ends; the client resumes");
                    return None;
                }
            }
            tokio::select! {
                () = self.app.stopped() => return None,
                received = self.changes.recv() => {
                    if matches!(received, Err(RecvError::Closed)) {
                        return None;
                    }
                }
            }
        }
    }

    /// Reads what is new; `true` when there may be more.
    async fn read(&mut self) -> Result<bool, StoreError> {
        let org = self.viewer.org().clone();
        let lines = {
            let mut db = self.app.db.read(&org).await?;
            feed::after(&mut db, &org, self.after, FEED_PAGE).await?
        };
        let more = !lines.is_empty();
        if more && !self.viewer.is_in_force(&self.app).await? {
            return Err(StoreError::Busy);
        }
        for line in lines {
            self.after = line.seq;
            let Change::Approval { state, .. } = line.change else { continue };
            let mut db = self.app.db.read(&org).await?;
            let Some(approval) = approvals::find(&mut db, &org, &state.id).await? else { continue };
            if !self.viewer.may_see(&approval) {
                continue;
            }
            let view = ApprovalView::new(approval, self.app.now());
            let data = serde_json::to_string(&view)?;
            self.ready.push_back(Event::default().event("approval").id(line.seq.to_string()).data(data));
        }
        Ok(more)
    }
}
