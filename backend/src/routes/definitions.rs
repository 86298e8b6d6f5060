//! What tool servers say their tools are: what was pinned, what is served now, and the acceptance of it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::StatusCode;
use oakallow_policy::annotation::annotated_risk_level;
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::rfc3339;
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::SeenDefinitions;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nouns::found;
use crate::answer::Json;
use crate::auth::{Management, ProxyIdentity};
use crate::definitions::{self, Difference, differences};
use crate::error::ApiError;
use crate::extract::{Body, Page, Params, Segment, decode_cursor, page_limit};
use crate::state::App;
use crate::store::definitions::{self as table, Stored};
use crate::store::{Conn, tools};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/tools/{name}/definition", get(show))
        .route("/v1/tools/{name}/definition/accept", post(accept))
        .route("/v1/tool-definitions", get(list))
        .route("/v1/proxies/{id}/definitions", post(seen))
}

/// `POST /v1/proxies/{id}/definitions`: what a proxy saw served.
pub(crate) async fn seen(
    State(app): State<Arc<App>>,
    me: ProxyIdentity,
    Segment(id): Segment,
    Body(seen): Body<SeenDefinitions>,
) -> Result<StatusCode, ApiError> {
    me.must_be(&id)?;
    if !me.proxy.serves_audience(&seen.audience) {
        return Err(ApiError::invalid_value(
            "/audience",
            "This proxy does not stand before that tool server.",
        ));
    }
    let mut write = me.credential.write(&app).await?;
    if definitions::seen(&app, &mut write, &me.proxy, (&seen.audience, &seen.definitions)).await? {
        write.bump(&me.proxy.org, None).await?;
        write.commit().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
pub(crate) struct Shown {
    tool: Name,
    audience: Name,
    /// What is served is not what was pinned.
    changed: bool,
    pinned: Side,
    /// Who accepted it; left out for the first sight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_by: Option<String>,
    pinned_at: String,
    served: Side,
    /// The proxy that saw it.
    served_through: String,
    served_at: String,
    /// Left out when one of the two was too large to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<Vec<Difference>>,
}

/// One of the two definitions.
#[derive(Serialize)]
struct Side {
    sha256: String,
    /// `null` when it was too large to be kept.
    definition: Option<Value>,
    /// What its annotations speak for: a hint of the tool server, which decides nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    annotated_risk_level: Option<RiskLevel>,
}

impl From<table::Definition> for Side {
    fn from(definition: table::Definition) -> Self {
        let annotated_risk_level = definition.content.as_ref().and_then(annotated_risk_level);
        Self { sha256: definition.sha256, definition: definition.content, annotated_risk_level }
    }
}

impl From<Stored> for Shown {
    fn from(stored: Stored) -> Self {
        let both = stored.pinned.content.as_ref().zip(stored.served.content.as_ref());
        Self {
            changed: stored.is_changed(),
            differences: both.map(|(pinned, served)| differences(pinned, served)),
            tool: stored.tool,
            audience: stored.audience,
            pinned: stored.pinned.into(),
            pinned_by: stored.pinned_by,
            pinned_at: rfc3339(stored.pinned_at),
            served: stored.served.into(),
            served_through: stored.served_through,
            served_at: rfc3339(stored.served_at),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    /// Only those that are not served as they were pinned.
    #[serde(default)]
    changed: bool,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /v1/tool-definitions`: of the registered tools.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Shown>>, ApiError> {
    let limit = page_limit(params.limit);
    let cursor = decode_cursor(params.cursor.as_deref())?;
    // Names hold no line breaks.
    let after = cursor.split_once('\n').unwrap_or((&cursor, ""));
    let mut db = app.db.read(who.org()).await?;
    let rows = table::list(&mut db, who.org(), params.changed, after, limit + 1).await?;
    let page = Page::new(rows, limit, |d| format!("{}\n{}", d.audience, d.tool));
    Ok(Json(Page { data: page.data.into_iter().map(Shown::from).collect(), next_cursor: page.next_cursor }))
}

/// `GET /v1/tools/{name}/definition`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
) -> Result<Json<Shown>, ApiError> {
    let name = name.name("tool")?;
    let mut db = app.db.read(who.org()).await?;
    Ok(Json(of_tool(&mut db, who.org(), &name).await?.into()))
}

async fn of_tool(db: &mut Conn, org: &Name, name: &Name) -> Result<Stored, ApiError> {
    let tool: tools::Stored = found(db, org, name).await?;
    let stored = table::find(db, org, name, &tool.tool.audience).await?;
    stored.ok_or_else(|| ApiError::not_found("definition seen of tool", name))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accept {
    /// `served.sha256` of what was looked at.
    sha256: String,
}

/// `POST /v1/tools/{name}/definition/accept`: pins what is served now; 409 when that is not what was looked at.
pub(crate) async fn accept(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
    Body(accept): Body<Accept>,
) -> Result<Json<Shown>, ApiError> {
    let name = name.name("tool")?;
    let mut write = who.write(&app).await?;
    let stored = of_tool(&mut write, who.org(), &name).await?;
    if stored.served.sha256 != accept.sha256 {
        let detail = "The tool server serves another definition by now: look at that one.";
        return Err(ApiError::conflict("definition_moved", detail));
    }
    let place = (who.org(), &name, &stored.audience);
    let pinned = definitions::accept(&app, &mut write, place, who.principal()).await?;
    write.bump(who.org(), None).await?;
    write.commit().await?;
    Ok(Json(pinned.unwrap_or(stored).into()))
}
