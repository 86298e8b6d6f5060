//! The exact arguments of an approval, laid out to be read, and the page for those that are long.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use oakallow_policy::wire::ApprovalStatus;
use serde_json::Value;

use super::approvals::Controls;
use super::text::{Piece, grouped, kilobytes, visible};
use super::{refused, show};
use crate::approvals::decide;
use crate::error::ApiError;
use crate::extract::Segment;
use crate::session::Session;
use crate::state::App;
use crate::store::approvals::{self, Approval};
use crate::store::{Conn, arguments, orgs};

/// Shorter ones are seen at a glance.
const HINT_BYTES_MIN: usize = 1_000;

/// Arguments to be read.
#[derive(Default)]
pub(super) struct Exact {
    pub(super) pieces: Vec<Piece>,
    /// `100 kB, 2,000 values`, of long ones.
    pub(super) size: Option<String>,
}

/// All of them, and the buttons.
#[derive(Template)]
#[template(path = "arguments.html")]
struct ArgumentsPage {
    reference: String,
    tool: String,
    principal: String,
    exact: Exact,
    controls: Option<Controls>,
    status: &'static str,
}

/// `GET /approvals/{id}/arguments`: to those who may decide.
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    session: Result<Session, ApiError>,
    Segment(id): Segment,
) -> Response {
    let rendered = async {
        let session = session?;
        let mut db = app.db.read(&session.org).await?;
        let not_found = || ApiError::not_found("approval", &id);
        let approval = approvals::find(&mut db, &session.org, &id).await?.ok_or_else(not_found)?;
        let settings = orgs::settings(&mut db, &session.org).await?;
        decide::eligible(&approval, &session.decider(), settings.approver_keys_decide_high_risk)?;
        let due = approval.is_due(app.now());
        let status = if due { ApprovalStatus::Expired } else { approval.status };
        let page = ArgumentsPage {
            exact: exact(&app, &mut db, &approval).await?,
            controls: (status == ApprovalStatus::Pending).then(|| Controls::of(&approval, &session)),
            status: status.as_str(),
            reference: approval.reference,
            tool: approval.tool.to_string(),
            principal: approval.principal.to_string(),
        };
        Ok::<_, ApiError>(show(StatusCode::OK, &page))
    };
    rendered.await.unwrap_or_else(|error| refused(&headers, error))
}

/// The exact arguments; none when they were deleted.
pub(super) async fn exact(app: &Arc<App>, db: &mut Conn, approval: &Approval) -> Result<Exact, ApiError> {
    let Some(sealed) = arguments::find(db, (&approval.org, &approval.id)).await? else {
        return Ok(Exact::default());
    };
    let internal = |e: &dyn std::fmt::Display| ApiError::internal(e);
    let plain =
        app.vault.open_arguments(db, &approval.org, &approval.id, &sealed).await.map_err(|e| internal(&e))?;
    let value: Value = serde_json::from_slice(&plain).map_err(|e| internal(&e))?;
    let text = serde_json::to_string_pretty(&value).map_err(|e| internal(&e))?;
    let size = (plain.len() >= HINT_BYTES_MIN).then(|| {
        let values = values(&value);
        let noun = if values == 1 { "value" } else { "values" };
        format!("{}, {} {noun}", kilobytes(plain.len()), grouped(values))
    });
    Ok(Exact { pieces: visible(&text), size })
}

/// How many there are to look at: the leaves.
fn values(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(members) => members.values().map(values).sum(),
        _ => 1,
    }
}
