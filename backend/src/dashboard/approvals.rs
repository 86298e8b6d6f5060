//! The approvals page: what waits for a person, with everything needed to decide it, and what was
//! decided of late.

use std::cmp::Reverse;
use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode};
use oakallow_policy::timestamp::{self, UnixMs};
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::ApprovalStatus;
use serde::Deserialize;

use super::arguments::{Exact, exact};
use super::drift::{self, Drift};
use super::text::{Piece, kilobytes, remaining, visible};
use super::why::{self, Why};
use super::{refused, show};
use crate::approvals::decide::{self, Verdict};
use crate::error::ApiError;
use crate::extract::Segment;
use crate::session::Session;
use crate::state::App;
use crate::store::approvals::{self, Approval, Filter};
use crate::store::{self, Conn, arguments, orgs, tools, votes};

/// Pending ones on one page; the oldest deadline first.
const PENDING_MAX: u32 = 200;
/// Longer arguments have a page of their own: one agent's must not bury everybody's requests.
const ARGUMENTS_BYTES_MAX: i64 = 16 * 1024;
/// Decided ones below.
const RECENT_MAX: usize = 30;
/// They are found among so many that were asked for last.
const LOOKED_AT_MAX: u32 = 200;

#[derive(Template)]
#[template(path = "approvals.html")]
struct ApprovalsPage<'a> {
    session: &'a Session,
    lists: Lists,
}

/// The part that changes; fetched alone when something does.
#[derive(Template)]
#[template(path = "approvals_list.html")]
struct Lists {
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
    why: Why,
    rule: Option<String>,
    asked_at: String,
    deadline_ms: UnixMs,
    remaining: String,
    reason: Vec<Piece>,
    exact: Exact,
    /// How long the arguments are, when they have a page of their own.
    apart: Option<String>,
    /// Why this person may not decide it.
    barred: Option<String>,
    /// Of one who may.
    controls: Option<Controls>,
    approvals_so_far: Vec<String>,
    levels: u8,
    ran_before: u32,
    /// The tool is not what it was when it was pinned.
    drift: Option<Drift>,
}

/// The form that decides.
pub(super) struct Controls {
    pub(super) id: String,
    pub(super) csrf: String,
    pub(super) risk: &'static str,
    /// Before it approves; a hand slips.
    pub(super) asks_again: bool,
}

impl Controls {
    pub(super) fn of(approval: &Approval, session: &Session) -> Self {
        Self {
            id: approval.id.clone(),
            csrf: session.csrf().to_owned(),
            risk: approval.risk_level.as_str(),
            asks_again: approval.risk_level >= RiskLevel::High,
        }
    }
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

async fn lists(app: &Arc<App>, session: &Session) -> Result<Lists, ApiError> {
    let now = app.now();
    let mut db = app.db.read(&session.org).await?;
    let settings = orgs::settings(&mut db, &session.org).await?;
    let keys_decide = settings.approver_keys_decide_high_risk;
    let pending = Filter { status: Some(ApprovalStatus::Pending), ..Filter::default() };
    let mut waiting = approvals::list(&mut db, &session.org, &pending, PENDING_MAX).await?;
    waiting.retain(|a| !a.is_due(now));
    waiting.sort_by_key(Approval::deadline);
    let mut cards = Vec::with_capacity(waiting.len());
    for approval in waiting {
        cards.push(card(app, &mut db, approval, (session, keys_decide)).await?);
    }
    let all = approvals::list(&mut db, &session.org, &Filter::default(), LOOKED_AT_MAX).await?;
    let mut settled: Vec<_> =
        all.into_iter().filter(|a| a.status != ApprovalStatus::Pending || a.is_due(now)).collect();
    settled.sort_by_key(|a| Reverse(settled_ms(a)));
    let recent = settled.into_iter().take(RECENT_MAX).map(|a| row(a, now)).collect();
    Ok(Lists { pending: cards, recent })
}

async fn card(
    app: &Arc<App>,
    db: &mut Conn,
    approval: Approval,
    of: (&Session, bool),
) -> Result<Card, ApiError> {
    let (session, keys_decide) = of;
    let barred = decide::eligible(&approval, &session.decider(), keys_decide).err();
    let bytes = arguments::bytes(db, (&approval.org, &approval.id)).await?.unwrap_or(0);
    let apart = (bytes > ARGUMENTS_BYTES_MAX).then(|| kilobytes(usize::try_from(bytes).unwrap_or_default()));
    let exact = match (&barred, &apart) {
        (None, None) => exact(app, db, &approval).await?,
        _ => Exact::default(),
    };
    let registered = !why::depends_on_registration(&approval.resolved_from)
        || store::one::<tools::Stored>(db, &approval.org, &approval.tool)
            .await?
            .is_some_and(|t| t.status == tools::Status::Active && t.tool.audience == approval.audience);
    let drift = drift::of(db, &approval).await?;
    let now = app.now();
    let deadline_ms = approval.deadline();
    Ok(Card {
        approvals_so_far: votes::voters(db, (&approval.org, &approval.id)).await?,
        ran_before: approvals::count_consumed(db, &approval.org, approval.fingerprint).await?,
        controls: barred.is_none().then(|| Controls::of(&approval, session)),
        barred: barred.as_ref().map(why::barred),
        exact,
        apart,
        why: if drift.is_some() { why::described_anew() } else { why::why(&approval, registered) },
        drift,
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
        rule: approval.rule,
        levels: approval.levels,
    })
}

/// When it was decided; if nobody did, when it ended.
fn settled_ms(approval: &Approval) -> UnixMs {
    approval.decided_ms.or(approval.closed_ms).unwrap_or(approval.expires_ms)
}

fn row(approval: Approval, now: UnixMs) -> Decided {
    let status = if approval.is_due(now) { ApprovalStatus::Expired } else { approval.status };
    Decided {
        at: moment(settled_ms(&approval)),
        status: status.as_str(),
        reference: approval.reference,
        tool: approval.tool.to_string(),
        resource: approval.resource.map(|r| r.to_string()),
        tenant: approval.tenant.map(|t| t.to_string()),
        principal: approval.principal.to_string(),
        by: approval.decided_by,
        note: approval.note.as_deref().map(visible).unwrap_or_default(),
    }
}

/// `2026-11-24 06:33:19 UTC`
fn moment(at: UnixMs) -> String {
    let text = timestamp::rfc3339(at);
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{day} {} UTC", time.split('.').next().unwrap_or_default())
}
