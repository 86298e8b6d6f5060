//! Drafts: a tool that nobody registered is noted at its first sight, for somebody to triage. A draft
//! takes no part in decisions.

use oakallow_policy::audit::EventType;
use oakallow_policy::call::CallNames;
use serde_json::json;

use crate::record::Change;
use crate::state::App;
use crate::store::tools::{self, Seen, Status};
use crate::store::{StoreError, Write};

/// Drafts an org gets in a day: an agent that invents names must not fill the table.
const PER_DAY_MAX: u32 = 100;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Notes the tool of a call that is not registered.
pub(crate) async fn sighted(app: &App, write: &mut Write, call: &CallNames) -> Result<(), StoreError> {
    let now = app.now();
    let seen = Seen {
        name: &call.tool,
        audience: &call.audience,
        now,
        since: now.saturating_sub(DAY_MS),
        max: PER_DAY_MAX,
    };
    if !tools::draft(write, &call.org, &seen).await? {
        return Ok(());
    }
    let detail = json!({"name": call.tool, "audience": call.audience, "status": Status::Draft});
    Change::new(EventType::ToolCreated, &call.org, &call.principal, detail)
        .tool(Some(&call.tool))
        .tenant(call.tenant.as_ref())
        .record(app, write)
        .await
}
