//! What moves an approval on: deciding, cancelling, consuming.

use std::sync::Arc;

use axum::extract::State;
use oakallow_policy::approval;
use oakallow_policy::permit::Consumption;
use oakallow_policy::wire::{ApprovalStatus, ConsumeRequest};
use serde::Deserialize;

use super::{ApprovalView, must_serve};
use crate::answer::Json;
use crate::approvals::decide::{self, Verdict};
use crate::approvals::ended::cancel_without_key;
use crate::approvals::{Settled, request, settle};
use crate::auth::ProxyIdentity;
use crate::error::ApiError;
use crate::extract::{Body, Segment};
use crate::keys::KeyKind;
use crate::state::App;
use crate::store::Write;
use crate::store::approvals::{self, Approval, Step};
use crate::viewer::Viewer;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecideRequest {
    decision: Verdict,
    note: Option<String>,
}

/// `POST /v1/approvals/{id}/decide`: the first decision wins, every other gets 409 and the winner.
pub(crate) async fn decide(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Segment(id): Segment,
    Body(request): Body<DecideRequest>,
) -> Result<Json<ApprovalView>, ApiError> {
    let decider = viewer.decider(&app).await?.ok_or_else(|| {
        ApiError::forbidden("wrong_credential", "Deciding takes a signed-in person or an approver key.")
    })?;
    let mut write = viewer.write(&app).await?;
    let decision = (request.decision, request.note.as_deref());
    let approval = decide::decide(&app, &mut write, (viewer.org(), &id), &decider, decision).await?;
    write.commit().await?;
    Ok(Json(ApprovalView::new(approval, app.now())))
}

/// `POST /v1/approvals/{id}/cancel`: by who asked (as unneeded), or by a person who may decide.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Segment(id): Segment,
) -> Result<Json<ApprovalView>, ApiError> {
    let mut write = viewer.write(&app).await?;
    let not_found = || ApiError::not_found("approval", &id);
    let approval = approvals::find(&mut write, viewer.org(), &id).await?.ok_or_else(not_found)?;
    may_cancel(&app, &viewer, &approval).await?;
    let of = (viewer.org(), id.as_str());
    match settle(&app, &mut write, of, Step::Cancel, Some(viewer.actor())).await?.ok_or_else(not_found)? {
        Settled::Moved(approval) => {
            write.commit().await?;
            Ok(Json(ApprovalView::new(approval, app.now())))
        }
        Settled::Stayed(winner) => {
            let detail = format!("This approval is {} already.", winner.status.as_str());
            Err(decide::settled(detail, &winner))
        }
    }
}

async fn may_cancel(app: &Arc<App>, viewer: &Viewer, approval: &Approval) -> Result<(), ApiError> {
    if let Viewer::Key(credential) = viewer
        && credential.kind() == KeyKind::Proxy
    {
        let proxy = ProxyIdentity::of((**credential).clone(), app).await?;
        return must_serve(&proxy, &approval.audience, approval.tenant.as_ref());
    }
    if !viewer.may_see(approval) {
        return Err(ApiError::not_found("approval", &approval.id));
    }
    match viewer {
        Viewer::Person(session) if !session.decider().may_decide => {
            Err(ApiError::forbidden("role_not_enough", "Your role does not cancel approvals."))
        }
        Viewer::Key(credential) if credential.kind() == KeyKind::Approver => {
            Err(ApiError::forbidden("wrong_credential", "An approver key reads and decides, nothing else."))
        }
        _ => Ok(()),
    }
}

/// `POST /v1/approvals/{id}/consume`: once, for the call that was approved, before its deadline. The same
/// proxy is told the same again for the same call, whose answer may have been lost.
pub(crate) async fn consume(
    State(app): State<Arc<App>>,
    proxy: ProxyIdentity,
    Segment(id): Segment,
    Body(request): Body<ConsumeRequest>,
) -> Result<Json<Consumption>, ApiError> {
    let org = proxy.credential.org().clone();
    let not_found = || ApiError::not_found("approval", &id);
    let mut write = proxy.credential.write(&app).await?;
    let approval = approvals::find(&mut write, &org, &id).await?.ok_or_else(not_found)?;
    must_serve(&proxy, &approval.audience, approval.tenant.as_ref())?;
    let by = proxy.proxy.id.as_str();
    // The proxy may not have heard yet that the caller's key has ended.
    let may_call = cancel_without_key(&app, &mut write, (&org, &approval.principal), None).await?;
    let step = Step::Consume { fingerprint: request.fingerprint, txn: &request.txn, proxy: Some(by) };
    let (approval, consumed) =
        match settle(&app, &mut write, (&org, &id), step, None).await?.ok_or_else(not_found)? {
            Settled::Moved(approval) => (approval, true),
            Settled::Stayed(approval) => {
                let again = may_call && is_repeated(&mut write, &approval, &request, by).await?;
                (approval, again)
            }
        };
    // An expiry that was noticed here counts.
    write.commit().await?;
    if !consumed {
        return Err(not_consumable(&approval));
    }
    Ok(Json(Consumption { approval_id: approval.id, fingerprint: approval.fingerprint, txn: request.txn }))
}

/// Whether this very request consumed it, and its call has not ended since.
async fn is_repeated(
    write: &mut Write,
    approval: &Approval,
    request: &ConsumeRequest,
    by: &str,
) -> Result<bool, ApiError> {
    let same = approval.fingerprint == request.fingerprint
        && approval.consumed_txn.as_ref() == Some(&request.txn)
        && approval.consumed_proxy.as_deref() == Some(by);
    let ran = request::outcome(write, approval).await?.ran();
    Ok(approval::repeats(approval.status, same, ran))
}

/// 409: why this approval cannot be consumed.
pub(crate) fn not_consumable(approval: &Approval) -> ApiError {
    let (code, detail) = match approval.status {
        ApprovalStatus::Approved => {
            ("other_call", "It was given for another call: the fingerprints differ. Ask for a new approval.")
        }
        ApprovalStatus::Pending => ("approval_pending", "Nobody has decided yet."),
        ApprovalStatus::Denied => ("approval_denied", "It was denied."),
        ApprovalStatus::Expired => ("approval_expired", "It expired before it was used. Ask for a new one."),
        ApprovalStatus::Cancelled => ("approval_cancelled", "It was cancelled. Ask for a new one."),
        ApprovalStatus::Consumed => ("approval_consumed", "It was used already, for one call."),
    };
    let mut error = ApiError::conflict(code, detail)
        .with("approval_id", approval.id.clone())
        .with("approval_status", approval.status.as_str());
    if let Some(txn) = &approval.consumed_txn {
        error = error.with("execution", txn.clone());
    }
    error
}
