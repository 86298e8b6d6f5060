//! Drafts: a tool that nobody registered is noted at its first sight, for somebody to triage. A draft
//! takes no part in decisions.

use std::collections::HashSet;

use oakallow_policy::audit::{Chained, EventData, EventType};
use oakallow_policy::call::CallNames;
use oakallow_policy::id::Name;
use serde_json::json;

use crate::record::Change;
use crate::state::App;
use crate::store::tools::{self, Seen, Status};
use crate::store::{StoreError, Write};

/// Drafts an org gets in a day: an agent that invents names must not fill the table.
const PER_DAY_MAX: u32 = 100;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Notes the tools that a proxy's decisions call unregistered.
pub(crate) async fn sighted_by_proxy(
    app: &App,
    write: &mut Write,
    org: &Name,
    events: &[Chained],
) -> Result<(), StoreError> {
    let mut seen = HashSet::new();
    for chained in events {
        let data = &chained.event.data;
        let unregistered = data.decision.as_ref().is_some_and(|d| d.unregistered);
        if let Some(call) = call(org, data).filter(|_| unregistered)
            && seen.insert((call.tool.clone(), call.audience.clone()))
        {
            sighted(app, write, &call).await?;
        }
    }
    Ok(())
}

/// The call of an event, as far as a draft needs it.
fn call(org: &Name, data: &EventData) -> Option<CallNames> {
    let name = |text: &Option<String>| text.as_deref().and_then(|text| Name::new(text).ok());
    Some(CallNames {
        org: org.clone(),
        tenant: name(&data.tenant),
        principal: name(&data.principal)?,
        audience: name(&data.audience)?,
        tool: name(&data.tool)?,
        resource: None,
        method: None,
    })
}

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
