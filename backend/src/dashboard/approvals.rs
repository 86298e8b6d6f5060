//! The approvals page: what waits for a person, with everything needed to decide it, and what was
//! decided of late.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode};
use oakallow_policy::ResolvedFrom;
use oakallow_policy::timestamp::{self, UnixMs};
use oakallow_policy::wire::ApprovalStatus;
use serde::Deserialize;
use serde_json::Value;
use sqlx::SqliteConnection;

use super::text::{Piece, remaining, visible};
use super::{refused, show};
use crate::approvals::decide::{self, Decider, Verdict};
use crate::error::ApiError;
use crate::extract::Segment;
use crate::session::Session;
use crate::state::App;
use crate::store::approvals::{self, Approval, Filter};
use crate::store::{arguments, orgs, votes};

/// Pending ones on one page; the oldest deadline first.
const PENDING_MAX: u32 = 200;
/// Longer arguments have a page of their own: one agent's must not bury everybody's requests.
const ARGUMENTS_BYTES_MAX: i64 = 16 * 1024;
/// Decided ones below.
const RECENT_MAX: u32 = 30;

#[derive(Template)]
#[template(path = "approvals.html")]
struct ApprovalsPage<'a> {
    session: &'a Session,
    lists: Lists<'a>,
}

/// The part that changes; fetched alone when something does.
#[derive(Template)]
#[template(path = "approvals_list.html")]
struct Lists<'a> {
    csrf: &'a str,
    pending: Vec<Card>,
    recent: Vec<Decided>,
}

/// A pending approval.
struct Card {
    id: String,
    reference: String,
    tool: String,
    resource: Option<String>,
    method: Option<String>,
    tenant: Option<String>,
    audience: String,
    principal: String,
    owner: Option<String>,
    risk: &'static str,
    why: String,
    rule: Option<String>,
    asked_at: String,
    deadline_ms: UnixMs,
    remaining: String,
    reason: Vec<Piece>,
    arguments: Vec<Piece>,
    /// They are so long that they have a page of their own.
    arguments_apart: bool,
    /// Why this person may not decide it.
    barred: Option<String>,
    approvals_so_far: Vec<String>,
    levels: u8,
    ran_before: u32,
}

/// One that was settled.
struct Decided {
    reference: String,
    tool: String,
    resource: Option<String>,
    tenant: Option<String>,
    principal: String,
    status: &'static str,
    by: Option<String>,
    at: String,
    note: Vec<Piece>,
}

/// `GET /approvals`
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    session: Result<Session, ApiError>,
) -> Response {
    let rendered = async {
        let session = session?;
        let lists = lists(&app, &session).await?;
        Ok::<_, ApiError>(show(StatusCode::OK, &ApprovalsPage { lists, session: &session }))
    };
    rendered.await.unwrap_or_else(|error| refused(&headers, error))
}

/// `GET /approvals/list`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    session: Result<Session, ApiError>,
) -> Response {
    let rendered = async {
        let session = session?;
        Ok::<_, ApiError>(show(StatusCode::OK, &lists(&app, &session).await?))
    };
    rendered.await.unwrap_or_else(|error| refused(&headers, error))
}

/// All of them.
#[derive(Template)]
#[template(path = "arguments.html")]
struct ArgumentsPage {
    reference: String,
    tool: String,
    principal: String,
    arguments: Vec<Piece>,
}

/// `GET /approvals/{id}/arguments`: to those who may decide.
pub(crate) async fn whole_arguments(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    session: Result<Session, ApiError>,
    Segment(id): Segment,
) -> Response {
    let rendered = async {
        let session = session?;
        let mut db = app.db.read().await?;
        let not_found = || ApiError::not_found("approval", &id);
        let approval = approvals::find(&mut db, &session.org, &id).await?.ok_or_else(not_found)?;
        let settings = orgs::settings(&mut db, &session.org).await?;
        decide::eligible(&approval, &session.decider(), settings.approver_keys_decide_high_risk)?;
        let page = ArgumentsPage {
            arguments: exact(&app, &mut db, &approval).await?,
            reference: approval.reference,
            tool: approval.tool.to_string(),
            principal: approval.principal.to_string(),
        };
        Ok::<_, ApiError>(show(StatusCode::OK, &page))
    };
    rendered.await.unwrap_or_else(|error| refused(&headers, error))
}

#[derive(Deserialize)]
pub(crate) struct DecideForm {
    csrf: String,
    decision: Verdict,
    #[serde(default)]
    note: String,
}

/// `POST /approvals/{id}/decide`
pub(crate) async fn decide(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    session: Result<Session, ApiError>,
    Segment(id): Segment,
    Form(form): Form<DecideForm>,
) -> Response {
    let decided = async {
        let session = session?;
        session.check_csrf(&form.csrf)?;
        let mut write = session.write(&app).await?;
        let decision = (form.decision, Some(form.note.as_str()));
        decide::decide(&app, &mut write, (&session.org, &id), &session.decider(), decision).await?;
        write.commit().await?;
        Ok::<_, ApiError>(())
    };
    match decided.await {
        Ok(()) => Redirect::to("/approvals").into_response(),
        Err(error) => refused(&headers, error),
    }
}

async fn lists<'s>(app: &Arc<App>, session: &'s Session) -> Result<Lists<'s>, ApiError> {
    let now = app.now();
    let mut db = app.db.read().await?;
    let settings = orgs::settings(&mut db, &session.org).await?;
    let keys_decide = settings.approver_keys_decide_high_risk;
    let pending = Filter { status: Some(ApprovalStatus::Pending), ..Filter::default() };
    let mut waiting = approvals::list(&mut db, &session.org, &pending, PENDING_MAX).await?;
    waiting.retain(|a| !a.is_due(now));
    waiting.sort_by_key(Approval::deadline);
    let decider = session.decider();
    let mut cards = Vec::with_capacity(waiting.len());
    for approval in waiting {
        cards.push(card(app, &mut db, approval, (&decider, keys_decide)).await?);
    }
    let all = approvals::list(&mut db, &session.org, &Filter::default(), RECENT_MAX * 2).await?;
    let settled = all.into_iter().filter(|a| a.status != ApprovalStatus::Pending || a.is_due(now));
    let recent = settled.take(RECENT_MAX as usize).map(|a| row(a, now)).collect();
    Ok(Lists { csrf: session.csrf(), pending: cards, recent })
}

async fn card(
    app: &Arc<App>,
    db: &mut SqliteConnection,
    approval: Approval,
    decider: (&Decider, bool),
) -> Result<Card, ApiError> {
    let barred = decide::eligible(&approval, decider.0, decider.1).err().map(|e| e.to_string());
    let bytes = arguments::bytes(db, &approval.id).await?.unwrap_or(0);
    let arguments_apart = bytes > ARGUMENTS_BYTES_MAX;
    let arguments = match &barred {
        None if !arguments_apart => exact(app, db, &approval).await?,
        _ => Vec::new(),
    };
    let now = app.now();
    let deadline_ms = approval.deadline();
    Ok(Card {
        approvals_so_far: votes::voters(db, &approval.id).await?,
        ran_before: approvals::count_consumed(db, &approval.org, approval.fingerprint).await?,
        barred,
        arguments,
        arguments_apart,
        deadline_ms,
        remaining: remaining(deadline_ms, now),
        reason: approval.reason.as_deref().map(visible).unwrap_or_default(),
        asked_at: moment(approval.created_ms),
        risk: approval.risk_level.as_str(),
        id: approval.id,
        reference: approval.reference,
        tool: approval.tool.to_string(),
        resource: approval.resource.map(|r| r.to_string()),
        method: approval.method.map(|m| m.to_string()),
        tenant: approval.tenant.map(|t| t.to_string()),
        audience: approval.audience.to_string(),
        principal: approval.principal.to_string(),
        owner: approval.owner,
        why: why(&approval.resolved_from),
        rule: approval.rule,
        levels: approval.levels,
    })
}

/// `L4 tenant tool rule`, `L12 fail safe`: the level that asks for a person.
fn why(resolved_from: &str) -> String {
    let words = resolved_from.replace('_', " ");
    let Some(from) = ResolvedFrom::parse(resolved_from) else { return words };
    let level = from.level().map(|level| format!("L{} ", level.number())).unwrap_or_default();
    let rule = if matches!(from, ResolvedFrom::Rule(..)) { " rule" } else { "" };
    format!("{level}{words}{rule}")
}

/// The exact arguments, laid out to be read.
async fn exact(
    app: &Arc<App>,
    db: &mut SqliteConnection,
    approval: &Approval,
) -> Result<Vec<Piece>, ApiError> {
    let Some(sealed) = arguments::find(db, &approval.id).await? else { return Ok(Vec::new()) };
    let internal = |e: &dyn std::fmt::Display| ApiError::internal(e);
    let plain =
        app.vault.open_arguments(db, &approval.org, &approval.id, &sealed).await.map_err(|e| internal(&e))?;
    let value: Value = serde_json::from_slice(&plain).map_err(|e| internal(&e))?;
    let text = serde_json::to_string_pretty(&value).map_err(|e| internal(&e))?;
    Ok(visible(&text))
}

fn row(approval: Approval, now: UnixMs) -> Decided {
    let status = if approval.is_due(now) { ApprovalStatus::Expired } else { approval.status };
    let at = approval.closed_ms.or(approval.decided_ms).unwrap_or(approval.expires_ms);
    Decided {
        status: status.as_str(),
        reference: approval.reference,
        tool: approval.tool.to_string(),
        resource: approval.resource.map(|r| r.to_string()),
        tenant: approval.tenant.map(|t| t.to_string()),
        principal: approval.principal.to_string(),
        by: approval.decided_by,
        at: moment(at),
        note: approval.note.as_deref().map(visible).unwrap_or_default(),
    }
}

/// `2026-11-24 06:33:19 UTC`
fn moment(at: UnixMs) -> String {
    let text = timestamp::rfc3339(at);
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{day} {} UTC", time.split('.').next().unwrap_or_default())
}
