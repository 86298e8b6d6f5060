//! Approvals: a person's leave for one call.
//!
//! The states and the steps between them are in [`oakallow_policy::approval`].
//!
//! Every step is one conditional statement ([`Step`]), its audit event and its line of the feed, in one
//! transaction. A deadline that has passed wins over any other step, whether or not the expirer has
//! been there.
//!
//! Reading order: here, then [`request`] (create or join), [`decide`] (who may), [`expire`] (deadlines),
//! [`ended`] (callers without a key).

pub(crate) mod decide;
pub(crate) mod ended;
pub(crate) mod expire;
pub(crate) mod request;

use std::sync::Arc;
use std::time::Duration;

use oakallow_policy::audit::{ApprovalRecord, DecisionRecord, EventData, EventType};
use oakallow_policy::id::Name;
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp;

use crate::feed::Change;
use crate::record;
use crate::state::App;
use crate::store::approvals::{self, Approval, Step};
use crate::store::{StoreError, Write, audit};

/// How long things count; the defaults are the product's.
#[derive(Debug, Clone)]
pub struct ApprovalLimits {
    /// An approved one must be consumed within this time.
    pub consume_within: Duration,
    /// For this long the same call is answered with the execution that was approved before.
    pub executed_memory: Duration,
    /// For this long the same call is answered with the denial.
    pub denial_memory: Duration,
    /// So many of one principal may be pending at once.
    pub pending_per_principal_max: u32,
    /// Exact arguments are deleted this long after the final state.
    pub arguments_kept: Duration,
}

impl Default for ApprovalLimits {
    fn default() -> Self {
        Self {
            consume_within: Duration::from_secs(15 * 60),
            executed_memory: Duration::from_secs(15 * 60),
            denial_memory: Duration::from_secs(10 * 60),
            pending_per_principal_max: 20,
            arguments_kept: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a step did.
#[derive(Debug)]
pub(crate) enum Settled {
    /// It was taken.
    Moved(Approval),
    /// It was not; this is where the approval stands.
    Stayed(Approval),
}

impl Settled {
    pub(crate) fn into_approval(self) -> Approval {
        match self {
            Self::Moved(approval) | Self::Stayed(approval) => approval,
        }
    }
}

/// Takes a step, tells of it, and returns where the approval stands; `None` when the org has no such
/// approval. `actor` is who took the step, if anybody did.
pub(crate) async fn settle(
    app: &Arc<App>,
    write: &mut Write,
    of: (&Name, &str),
    step: Step<'_>,
    actor: Option<&str>,
) -> Result<Option<Settled>, StoreError> {
    let (org, id) = of;
    // Read under the write lock: nobody changes it between here and the statement.
    let now = app.now();
    let moved = approvals::transition(write, org, id, step, now).await?;
    let expired = !moved && approvals::transition(write, org, id, Step::Expire, now).await?;
    let Some(approval) = approvals::find(write, org, id).await? else { return Ok(None) };
    if moved {
        tell(app, write, &approval, event_of(step), actor).await?;
    } else if expired {
        tell(app, write, &approval, EventType::ApprovalExpired, None).await?;
    }
    Ok(Some(if moved { Settled::Moved(approval) } else { Settled::Stayed(approval) }))
}

const fn event_of(step: Step<'_>) -> EventType {
    match step {
        Step::Approve { .. } | Step::Deny { .. } => EventType::ApprovalDecided,
        Step::Cancel => EventType::ApprovalCancelled,
        Step::Consume { .. } => EventType::ApprovalConsumed,
        Step::Expire => EventType::ApprovalExpired,
    }
}

/// Records what happened to an approval, and lets those who wait know.
pub(crate) async fn tell(
    app: &Arc<App>,
    write: &mut Write,
    approval: &Approval,
    kind: EventType,
    actor: Option<&str>,
) -> Result<(), StoreError> {
    let now = app.now();
    // A consumed one belongs to the call that runs, the others to the call that asked.
    let txn = approval.consumed_txn.as_ref().unwrap_or(&approval.txn).clone();
    let event = record::event(app, kind, Some(txn), event_data(approval, kind, actor));
    audit::record(write, &approval.org, now, event).await?;
    let change = Change::Approval {
        state: approval.state(),
        tenant: approval.tenant.clone(),
        audience: approval.audience.clone(),
    };
    write.announce(&approval.org, change).await
}

fn event_data(approval: &Approval, kind: EventType, actor: Option<&str>) -> EventData {
    let decision = (kind == EventType::ApprovalCreated).then(|| DecisionRecord {
        permission: Permission::RequiresApproval,
        resolved_from: approval.resolved_from.clone(),
        rule: approval.rule.clone(),
        policy_version: approval.policy_version,
        unregistered: false,
        definition_changed: false,
    });
    let mut detail = serde_json::Map::new();
    detail.insert("risk_level".to_owned(), approval.risk_level.as_str().into());
    detail.insert("expires_at".to_owned(), timestamp::rfc3339(approval.deadline()).into());
    if approval.levels > 1 {
        detail.insert("levels".to_owned(), approval.levels.into());
    }
    let text = |name: &Option<Name>| name.as_ref().map(ToString::to_string);
    EventData {
        tenant: text(&approval.tenant),
        principal: Some(actor.unwrap_or(&approval.principal).to_owned()),
        audience: Some(approval.audience.to_string()),
        route: Some(approval.route.to_string()),
        tool: Some(approval.tool.to_string()),
        resource: text(&approval.resource),
        method: text(&approval.method),
        fingerprint: Some(approval.fingerprint.to_string()),
        decision,
        approval: Some(ApprovalRecord {
            id: approval.id.clone(),
            reference: Some(approval.reference.clone()),
            status: Some(approval.status.as_str().to_owned()),
            decided_by: approval.decided_by.clone(),
            note: approval.note.clone(),
        }),
        detail,
        ..EventData::default()
    }
}
