//! Executions: what proxies observed and what agents report. A report is not an observation, and says
//! so.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::StatusCode;
use oakallow_policy::audit::{ApprovalRecord, Chained, EventData, EventType, ExecutionRecord};
use oakallow_policy::id::{Kind, Name};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::answer::Json;
use crate::auth::Runtime;
use crate::error::ApiError;
use crate::extract::{Body, Page, Params, decode_cursor, foreign_cursor, page_limit};
use crate::keys::KeyKind;
use crate::record;
use crate::secrets::none_is_a_secret;
use crate::state::App;
use crate::store::audit::{self, StoredEvent};
use crate::store::executions::{self, Filter, Issued, Own};
use crate::viewer::Viewer;

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/executions", get(list)).route("/v1/executions/log", post(log))
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecutionResult {
    /// Answered 2xx and no error.
    Success,
    /// The tool answered an error.
    Failed,
    /// Nothing was sent.
    Error,
    /// Sent, no complete answer.
    Unknown,
}

impl ExecutionResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    tool_name: Name,
    execution_result: ExecutionResult,
    #[serde(default)]
    tenant_id: Option<Name>,
    #[serde(default)]
    resource_id: Option<Name>,
    #[serde(default)]
    method: Option<Name>,
    #[serde(default)]
    token_id: Option<String>,
    #[serde(default)]
    duration_ms: Option<u64>,
    /// HTTP status of the tool's answer.
    #[serde(default)]
    status: Option<u16>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Reported {
    execution_id: String,
    tool_name: Name,
    execution_result: ExecutionResult,
    /// The token was minted for this very caller and tool.
    linked: bool,
    txn: Option<String>,
}

/// `POST /v1/executions/log`: records what a caller says became of a call.
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    Runtime(credential): Runtime,
    Body(report): Body<Report>,
) -> Result<(StatusCode, Json<Reported>), ApiError> {
    none_is_a_secret([
        ("/tool_name", Some(&report.tool_name)),
        ("/resource_id", report.resource_id.as_ref()),
        ("/method", report.method.as_ref()),
    ])?;
    let tenant = credential.tenant(report.tenant_id.as_ref())?;
    if report.token_id.as_ref().is_some_and(|id| id.len() > 128) {
        return Err(ApiError::invalid_value("/token_id", "This is not the id of a token (tok_…)."));
    }
    let org = credential.org();
    let mut write = credential.write(&app).await?;
    let issued = match &report.token_id {
        Some(id) => executions::issued(&mut write, org, id).await?,
        None => None,
    };
    // Somebody else's token is not named in the record: it links nothing.
    let issued = issued.filter(|i| {
        i.tool.as_deref() == Some(report.tool_name.as_str())
            && i.principal.as_deref() == Some(credential.principal())
            && i.tenant.as_deref() == tenant.as_deref()
    });
    let id = app.random.id(Kind::Execution, app.now());
    let linked = issued.is_some();
    let txn = issued.as_ref().and_then(|i| i.txn.clone());
    let data = reported(&report, issued, (credential.principal(), tenant), &id);
    audit::record(
        &mut write,
        org,
        app.now(),
        record::event(&app, EventType::ExecutionReported, txn.clone(), data),
    )
    .await?;
    write.commit().await?;
    let answer = Reported {
        execution_id: id,
        tool_name: report.tool_name,
        execution_result: report.execution_result,
        linked,
        txn,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn reported(report: &Report, issued: Option<Issued>, who: (&str, Option<Name>), id: &str) -> EventData {
    let (principal, tenant) = who;
    let linked = issued.is_some();
    EventData {
        tenant: tenant.map(|t| t.to_string()),
        principal: Some(principal.to_owned()),
        tool: Some(report.tool_name.to_string()),
        resource: report.resource_id.as_ref().map(ToString::to_string),
        method: report.method.as_ref().map(ToString::to_string),
        token_id: report.token_id.clone().filter(|_| linked),
        approval: issued
            .and_then(|i| i.approval)
            .map(|id| ApprovalRecord { id, ..ApprovalRecord::default() }),
        execution: Some(ExecutionRecord {
            result: Some(report.execution_result.as_str().to_owned()),
            status: report.status,
            duration_ms: report.duration_ms,
            ..ExecutionRecord::default()
        }),
        detail: Map::from_iter([
            ("execution_id".to_owned(), id.into()),
            ("linked".to_owned(), linked.into()),
        ]),
        ..EventData::default()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    tool: Option<Name>,
    tenant: Option<Name>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// An execution as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ExecutionView {
    /// `exe_…` of a report; the life of the call of an observation.
    id: String,
    time: String,
    /// `observed` by a proxy, or `reported`.
    source: &'static str,
    tool_name: Option<String>,
    tenant_id: Option<String>,
    resource_id: Option<String>,
    method: Option<String>,
    principal: Option<String>,
    execution_result: String,
    token_id: Option<String>,
    linked: bool,
    txn: Option<String>,
    approval_id: Option<String>,
    status: Option<u16>,
    duration_ms: Option<u64>,
}

/// `GET /v1/executions`: newest first. Standard keys see their own.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ExecutionView>>, ApiError> {
    let cursor = decode_cursor(params.cursor.as_deref())?;
    let before = (!cursor.is_empty()).then(|| cursor.parse()).transpose().map_err(|_| foreign_cursor())?;
    let filter = Filter { tool: params.tool, tenant: params.tenant, own: own(&viewer)?, before };
    let limit = page_limit(params.limit);
    let mut db = app.db.read(viewer.org()).await?;
    let found = executions::list(&mut db, viewer.org(), &filter, limit).await?;
    let Page { data, next_cursor } = Page::of(found.events, found.more, |e| e.position.to_string());
    let data = data.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(Page { data, next_cursor }))
}

/// Whose executions this viewer may see; `None`: everybody's.
fn own(viewer: &Viewer) -> Result<Option<Own>, ApiError> {
    let Viewer::Key(credential) = viewer else { return Ok(None) };
    credential.require(&[KeyKind::Management, KeyKind::Standard, KeyKind::Agent], "Reading executions")?;
    Ok((credential.kind() != KeyKind::Management).then(|| Own {
        principal: credential.principal().to_owned(),
        within: credential.tenants().map(<[Name]>::to_vec),
    }))
}

fn shown(stored: &StoredEvent) -> Result<ExecutionView, ApiError> {
    let Chained { event, .. } = serde_json::from_str(&stored.body).map_err(|e| ApiError::internal(&e))?;
    let data = event.data;
    let reported = event.kind == EventType::ExecutionReported;
    let execution = data.execution.unwrap_or_default();
    let by_kind = match event.kind {
        EventType::CallCompleted => "success",
        EventType::CallFailed => "failed",
        EventType::CallNotForwarded => "error",
        _ => "unknown",
    };
    let id = data.detail.get("execution_id").and_then(|id| id.as_str()).map(str::to_owned);
    let linked = data.detail.get("linked").and_then(serde_json::Value::as_bool).unwrap_or(!reported);
    Ok(ExecutionView {
        id: id.or_else(|| event.txn.clone()).unwrap_or(event.id),
        time: event.time,
        source: if reported { "reported" } else { "observed" },
        tool_name: data.tool,
        tenant_id: data.tenant,
        resource_id: data.resource,
        method: data.method,
        principal: data.principal,
        execution_result: execution.result.filter(|_| reported).unwrap_or_else(|| by_kind.to_owned()),
        token_id: data.token_id,
        linked,
        txn: event.txn,
        approval_id: data.approval.map(|a| a.id),
        status: execution.status,
        duration_ms: execution.duration_ms,
    })
}
