//! Callers whose last key has ended: nothing runs for them any more, so nobody needs to decide.

use std::sync::Arc;

use oakallow_policy::id::Name;
use oakallow_policy::principal::is_external;
use oakallow_policy::wire::ApprovalStatus;

use super::settle;
use crate::state::App;
use crate::store::approvals::{self, Filter, Step};
use crate::store::{StoreError, Write, keys};

/// Cancels what a principal has open, unless a key of its own is still in force; says whether one is.
/// `actor` is who took the last one, if anybody did.
pub(crate) async fn cancel_without_key(
    app: &Arc<App>,
    write: &mut Write,
    of: (&Name, &Name),
    actor: Option<&str>,
) -> Result<bool, StoreError> {
    let (org, principal) = of;
    if is_external(principal) {
        // Its token or certificate is the proxy's to check, and it does so again before a call is released.
        return Ok(true);
    }
    if keys::may_call(write, org, principal, app.now()).await? {
        return Ok(true);
    }
    for status in [ApprovalStatus::Pending, ApprovalStatus::Approved] {
        let filter = Filter { status: Some(status), principal: Some(principal.clone()), ..Filter::default() };
        for open in approvals::list(write, org, &filter, u32::MAX).await? {
            settle(app, write, (org, &open.id), Step::Cancel, actor).await?;
        }
    }
    Ok(false)
}
