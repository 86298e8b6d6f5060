//! Tools: what agents call. A registered tool is part of the policy; a draft is one that was only seen.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use oakallow_policy::audit::EventType;
use oakallow_policy::canonical::hex;
use oakallow_policy::id::Name;
use oakallow_policy::ruleset::APPROVAL_TIMEOUT_S;
use oakallow_policy::timestamp::rfc3339;
use oakallow_policy::{Category, Tool};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::merge_patch;
use super::nouns::found;
use crate::answer::{Created, Json, created};
use crate::auth::{Credential, Management};
use crate::definitions;
use crate::error::ApiError;
use crate::extract::{Body, Page, Params, Segment, checked, decode_cursor, page_limit};
use crate::record::Change;
use crate::schema;
use crate::state::App;
use crate::store::tools::{self, Status, Stored};
use crate::store::{self, Conn, Write};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/tools", get(list).post(create))
        .route("/v1/tools/{name}", get(show).patch(update).delete(delete))
}

#[derive(Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    tool: Tool,
    status: Status,
    /// SHA-256 of name, description and schema, hex: what approvals and pins are bound to.
    definition_hash: String,
    created_at: String,
    updated_at: String,
}

impl TryFrom<Stored> for Shown {
    type Error = ApiError;

    fn try_from(stored: Stored) -> Result<Self, ApiError> {
        let hash = stored.tool.definition_hash().map_err(|e| ApiError::internal(&e))?;
        Ok(Self {
            definition_hash: hex(&hash),
            status: stored.status,
            created_at: rfc3339(stored.created_at),
            updated_at: rfc3339(stored.updated_at),
            tool: stored.tool,
        })
    }
}

/// `POST /v1/tools`; 409 when a tool of that name is registered. A draft of that name and audience
/// becomes the tool.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(tool): Body<Tool>,
) -> Result<Created<Shown>, ApiError> {
    check_values(&tool)?;
    let mut write = who.write(&app).await?;
    let known = store::one::<Stored>(&mut write, who.org(), &tool.name).await?;
    if known.is_some_and(|known| known.status == Status::Active) {
        let detail = format!("There is a tool `{}` already: change it with PATCH.", tool.name);
        return Err(ApiError::conflict("already_exists", detail));
    }
    let stored = put(&app, &mut write, &who, &tool, EventType::ToolCreated).await?;
    write.commit().await?;
    Ok(created(stored.try_into()?))
}

/// Checks what types cannot say.
fn check_values(tool: &Tool) -> Result<(), ApiError> {
    if let Some(schema) = &tool.parameter_schema {
        schema::check(schema).map_err(|e| ApiError::invalid_value("/parameter_schema", format!("{e}.")))?;
    }
    if tool.approval.timeout_s.is_some_and(|t| !APPROVAL_TIMEOUT_S.contains(&t)) {
        let detail = "An approval expires after 60 (a minute) to 604800 seconds (seven days).";
        return Err(ApiError::invalid_value("/approval/timeout_s", detail));
    }
    if tool.approval.levels.is_some_and(|l| !(1..=2).contains(&l)) {
        return Err(ApiError::invalid_value("/approval/levels", "One or two levels."));
    }
    if tool.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(ApiError::invalid_value("/description", "A description takes at most 16384 bytes."));
    }
    Ok(())
}

const DESCRIPTION_BYTES_MAX: usize = 16 * 1024;

async fn put(
    app: &Arc<App>,
    write: &mut Write,
    who: &Credential,
    tool: &Tool,
    kind: EventType,
) -> Result<Stored, ApiError> {
    category_must_exist(write, who.org(), tool).await?;
    tools::put(write, who.org(), tool, app.now()).await?;
    if kind == EventType::ToolCreated {
        // Who registers a tool takes it as it is served now.
        let place = (who.org(), &tool.name, &tool.audience);
        definitions::accept(app, write, place, who.principal()).await?;
    }
    Change::by(who, kind, json!(tool)).tool(Some(&tool.name)).announce(app, write, None).await?;
    let stored = store::one(write, who.org(), &tool.name).await?;
    stored.ok_or_else(|| ApiError::internal(&"the tool that was just written is not there"))
}

async fn category_must_exist(db: &mut Conn, org: &Name, tool: &Tool) -> Result<(), ApiError> {
    let Some(category) = &tool.category else { return Ok(()) };
    match store::one::<Category>(db, org, category).await? {
        Some(_) => Ok(()),
        None => Err(ApiError::invalid_value(
            "/category",
            format!("There is no category `{category}`: create it with POST /v1/categories."),
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    limit: Option<u32>,
    cursor: Option<String>,
    /// `active` or `draft`; both when left out.
    status: Option<Status>,
}

/// `GET /v1/tools`
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
    let rows = tools::list(&mut db, who.org(), params.status, after, limit + 1).await?;
    let page = Page::new(rows, limit, |t| format!("{}\n{}", t.tool.name, t.tool.audience));
    let data = page.data.into_iter().map(Shown::try_from).collect::<Result<_, _>>()?;
    Ok(Json(Page { data, next_cursor: page.next_cursor }))
}

/// `GET /v1/tools/{name}`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
) -> Result<Json<Shown>, ApiError> {
    let name = name.name("tool")?;
    let mut db = app.db.read(who.org()).await?;
    let stored: Stored = found(&mut db, who.org(), &name).await?;
    Ok(Json(stored.try_into()?))
}

/// `PATCH /v1/tools/{name}`: a merge patch (a schema is replaced whole); the name stays. A changed definition clears `approved`,
/// unless the same patch says that it was looked at. On a draft: registers it.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
    Body(patch): Body<Value>,
) -> Result<Json<Shown>, ApiError> {
    let name = name.name("tool")?;
    let mut write = who.write(&app).await?;
    let stored: Stored = found(&mut write, who.org(), &name).await?;
    let approves = patch.get("approved").is_some();
    let mut tool: Tool = checked(patched(&stored.tool, patch))?;
    if tool.name != name {
        return Err(ApiError::invalid_value("/name", "A tool keeps its name: register another one."));
    }
    check_values(&tool)?;
    if !approves && definition(&tool)? != definition(&stored.tool)? {
        tool.approved = false;
    }
    let kind = match stored.status {
        Status::Active => EventType::ToolUpdated,
        Status::Draft => EventType::ToolCreated,
    };
    let stored = put(&app, &mut write, &who, &tool, kind).await?;
    write.commit().await?;
    Ok(Json(stored.try_into()?))
}

/// The tool with a patch merged in. A schema is one value, replaced as a whole: a merge would keep what
/// the new schema leaves out, and drop each `null` in it.
fn patched(tool: &Tool, mut patch: Value) -> Value {
    let schema = patch.as_object_mut().and_then(|members| members.remove("parameter_schema"));
    let mut merged = json!(tool);
    merge_patch(&mut merged, patch);
    if let (Some(schema), Some(members)) = (schema, merged.as_object_mut()) {
        members.insert("parameter_schema".to_owned(), schema);
    }
    merged
}

fn definition(tool: &Tool) -> Result<[u8; 32], ApiError> {
    tool.definition_hash().map_err(|e| ApiError::internal(&e))
}

/// `DELETE /v1/tools/{name}`: calls of it become calls of an unregistered tool; its rules stay.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
) -> Result<StatusCode, ApiError> {
    let name = name.name("tool")?;
    let mut write = who.write(&app).await?;
    let status = tools::delete(&mut write, who.org(), &name)
        .await?
        .ok_or_else(|| ApiError::not_found("tool", &name))?;
    store::definitions::forget(&mut write, who.org(), &name).await?;
    let detail = json!({"name": name, "status": status});
    Change::by(&who, EventType::ToolDeleted, detail).tool(Some(&name)).publish(&app, write, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
