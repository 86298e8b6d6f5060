//! Rules: who may call what. One by one, or a whole scope at once (policy as code).

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::StatusCode;
use oakallow_policy::audit::EventType;
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp::{UnixMs, rfc3339};
use oakallow_policy::{Rule, RuleSet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::nouns::{found, show};
use super::{merge_patch, tenant_must_exist};
use crate::answer::{Created, Json, created};
use crate::auth::{Credential, Management};
use crate::decide::{self, undecided};
use crate::error::ApiError;
use crate::extract::{Body, Page, Params, Segment, checked, decode_cursor, page_limit};
use crate::record::Change;
use crate::routes::permissions::CallFields;
use crate::state::App;
use crate::store::rules::{self, Scope, Stored};
use crate::store::{self, Conn, StoreError, Write, tools};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/rules", get(list).post(create).put(replace))
        .route("/v1/rules/simulate", post(simulate))
        .route("/v1/rules/{id}", get(show::<Stored, Shown>).patch(update).delete(delete))
}

#[derive(Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    rule: Rule,
    /// 1 to 8.
    level: u8,
    created_at: String,
    updated_at: String,
}

impl From<Stored> for Shown {
    fn from(stored: Stored) -> Self {
        Self {
            level: stored.rule.level().number(),
            rule: stored.rule,
            created_at: rfc3339(stored.created_at),
            updated_at: rfc3339(stored.updated_at),
        }
    }
}

/// A new rule, and what whoever wrote it may want to know.
#[derive(Serialize)]
pub(crate) struct Added {
    #[serde(flatten)]
    shown: Shown,
    /// Sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// `POST /v1/rules`; 409 names the rule that has the same scope and selector.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(rule): Body<Rule>,
) -> Result<Created<Added>, ApiError> {
    refuse_own_id(&rule, "")?;
    check_guardrail(&rule, "")?;
    let now = app.now();
    let stored = with_id(&app, rule, now)?;
    let mut write = who.write(&app).await?;
    if let Some(tenant) = &stored.rule.tenant {
        tenant_must_exist(&mut write, who.org(), tenant, "/tenant_id").await?;
    }
    refuse_duplicate(&mut write, who.org(), &stored).await?;
    rules::insert(&mut write, who.org(), &stored).await?;
    let warnings = unregistered(&mut write, who.org(), &stored.rule).await?.into_iter().collect();
    changed(&app, write, &who, (EventType::RuleCreated, &stored.rule)).await?;
    Ok(created(Added { shown: stored.into(), warnings }))
}

/// A rule may come before its tool; a misspelt one looks the same.
async fn unregistered(db: &mut Conn, org: &Name, rule: &Rule) -> Result<Option<String>, StoreError> {
    let Some(tool) = &rule.tool else { return Ok(None) };
    let found = store::one::<tools::Stored>(db, org, tool).await?;
    if found.is_some_and(|t| t.status == tools::Status::Active) {
        return Ok(None);
    }
    let names = "applies to nothing until a tool of that name is registered";
    Ok(Some(format!("No tool `{tool}` is registered: this rule {names}.")))
}

fn with_id(app: &App, rule: Rule, now: UnixMs) -> Result<Stored, ApiError> {
    let id = app.random.id(Kind::Rule, now);
    let name = Name::new(&id).map_err(|e| ApiError::internal(&e))?;
    Ok(Stored { id, rule: Rule { id: Some(name), ..rule }, created_at: now, updated_at: now })
}

fn refuse_own_id(rule: &Rule, at: &str) -> Result<(), ApiError> {
    match &rule.id {
        None => Ok(()),
        Some(_) => Err(ApiError::invalid_value(format!("{at}/id"), "Ids are given here: leave it out.")),
    }
}

fn check_guardrail(rule: &Rule, at: &str) -> Result<(), ApiError> {
    if rule.guardrail && rule.tenant.is_some() {
        let detail = "A guardrail is a rule of the org: leave tenant_id out.";
        return Err(ApiError::invalid_value(format!("{at}/tenant_id"), detail));
    }
    if rule.guardrail && rule.permission.otherwise() != Permission::Disabled {
        let detail = "A guardrail always says `disabled`.";
        return Err(ApiError::invalid_value(format!("{at}/permission"), detail));
    }
    Ok(())
}

async fn refuse_duplicate(db: &mut Conn, org: &Name, stored: &Stored) -> Result<(), ApiError> {
    match rules::same_selector(db, org, &stored.rule).await? {
        Some(other) if other != stored.id => {
            let detail = format!("Rule `{other}` has the same scope and selector: change that one.");
            Err(ApiError::conflict("duplicate_rule", detail).with("rule", other))
        }
        _ => Ok(()),
    }
}

/// One rule changed; its tenant is the scope that changed.
async fn changed(
    app: &Arc<App>,
    write: Write,
    who: &Credential,
    (kind, rule): (EventType, &Rule),
) -> Result<u64, StoreError> {
    let tenant = rule.tenant.as_ref();
    Change::by(who, kind, json!(rule)).tenant(tenant).publish(app, write, tenant).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    limit: Option<u32>,
    cursor: Option<String>,
    /// Only this tenant's rules.
    tenant_id: Option<Name>,
    /// `org`: only the org's own rules.
    scope: Option<OrgScope>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrgScope {
    Org,
}

/// `GET /v1/rules`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Shown>>, ApiError> {
    let scope = match (&params.tenant_id, params.scope) {
        (None, None) => Scope::All,
        (None, Some(OrgScope::Org)) => Scope::Org,
        (Some(tenant), None) => Scope::Tenant(tenant),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid_request("Ask for a tenant's rules or for the org's, not both."));
        }
    };
    let limit = page_limit(params.limit);
    let after = decode_cursor(params.cursor.as_deref())?;
    let mut db = app.db.read(who.org()).await?;
    let rows = rules::list(&mut db, who.org(), scope, &after, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |r| r.id.clone()).map(Shown::from)))
}

/// `PATCH /v1/rules/{id}`: a merge patch; id and scope stay.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Segment(id): Segment,
    Body(patch): Body<Value>,
) -> Result<Json<Shown>, ApiError> {
    let mut write = who.write(&app).await?;
    let old: Stored = found(&mut write, who.org(), &id).await?;
    let mut merged = json!(old.rule);
    merge_patch(&mut merged, patch);
    let rule: Rule = checked(merged)?;
    if rule.id != old.rule.id || rule.tenant != old.rule.tenant {
        let detail = "A rule keeps its id and its scope: delete it and create another one.";
        return Err(ApiError::invalid_value("", detail));
    }
    check_guardrail(&rule, "")?;
    let stored = Stored { rule, updated_at: app.now(), ..old };
    refuse_duplicate(&mut write, who.org(), &stored).await?;
    rules::update(&mut write, who.org(), &stored).await?;
    changed(&app, write, &who, (EventType::RuleUpdated, &stored.rule)).await?;
    Ok(Json(stored.into()))
}

/// `DELETE /v1/rules/{id}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Segment(id): Segment,
) -> Result<StatusCode, ApiError> {
    let mut write = who.write(&app).await?;
    let old: Stored = found(&mut write, who.org(), &id).await?;
    rules::delete(&mut write, who.org(), &id).await?;
    changed(&app, write, &who, (EventType::RuleDeleted, &old.rule)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All rules of one scope.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScopeRules {
    /// The tenant; the org itself when it is left out.
    #[serde(default)]
    tenant_id: Option<Name>,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
pub(crate) struct Replaced {
    tenant_id: Option<Name>,
    policy_version: u64,
    rules: Vec<Shown>,
}

/// `PUT /v1/rules`: the scope has exactly these rules afterwards, or nothing changed. A rule whose
/// selector was there before keeps its id.
pub(crate) async fn replace(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(wanted): Body<ScopeRules>,
) -> Result<Json<Replaced>, ApiError> {
    let org = who.org();
    let tenant = wanted.tenant_id.as_ref();
    let new = in_scope(wanted.rules, tenant)?;
    let mut write = who.write(&app).await?;
    if let Some(tenant) = tenant {
        tenant_must_exist(&mut write, org, tenant, "/tenant_id").await?;
    }
    let stored = keep_ids(&app, rules::of_scope(&mut write, org, tenant).await?, new)?;
    let removed = rules::clear(&mut write, org, tenant).await?;
    for rule in &stored {
        rules::insert(&mut write, org, rule).await?;
    }
    let all: Vec<&Rule> = stored.iter().map(|s| &s.rule).collect();
    let detail = json!({"before": removed, "after": stored.len(), "rules": all});
    let change = Change::by(&who, EventType::RuleReplaced, detail).tenant(tenant);
    let version = change.publish(&app, write, tenant).await?;
    let rules = stored.into_iter().map(Shown::from).collect();
    Ok(Json(Replaced { tenant_id: wanted.tenant_id, policy_version: version, rules }))
}

type Selector = (Option<Name>, Option<Name>, Option<Name>);

fn selector(rule: &Rule) -> Selector {
    (rule.resource.clone(), rule.tool.clone(), rule.method.clone())
}

/// Puts the rules into their scope, and refuses what cannot be a set of rules.
fn in_scope(new: Vec<Rule>, tenant: Option<&Name>) -> Result<Vec<Rule>, ApiError> {
    let mut seen: HashMap<Selector, usize> = HashMap::new();
    let mut placed = Vec::with_capacity(new.len());
    for (i, mut rule) in new.into_iter().enumerate() {
        let at = format!("/rules/{i}");
        if rule.tenant.as_ref().is_some_and(|t| Some(t) != tenant) {
            let detail = "This rule names another scope than the set that it is in.";
            return Err(ApiError::invalid_value(format!("{at}/tenant_id"), detail));
        }
        rule.tenant = tenant.cloned();
        rule.id = None;
        check_guardrail(&rule, &at)?;
        if let Some(first) = seen.insert(selector(&rule), i) {
            let detail = format!("This rule has the same selector as /rules/{first}: keep one of the two.");
            return Err(ApiError::invalid_value(at, detail));
        }
        placed.push(rule);
    }
    Ok(placed)
}

fn keep_ids(app: &App, old: Vec<Rule>, new: Vec<Rule>) -> Result<Vec<Stored>, ApiError> {
    let mut ids: HashMap<Selector, Name> =
        old.into_iter().filter_map(|r| Some((selector(&r), r.id?))).collect();
    let now = app.now();
    new.into_iter()
        .map(|rule| match ids.remove(&selector(&rule)) {
            Some(id) => Ok(Stored {
                id: id.to_string(),
                rule: Rule { id: Some(id), ..rule },
                created_at: now,
                updated_at: now,
            }),
            None => with_id(app, rule, now),
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Simulate {
    call: CallFields,
    /// Who would call; an agent's or key's id.
    #[serde(default)]
    principal: Option<Name>,
    /// What `PUT /v1/rules` would be given; the rules as they are when left out.
    #[serde(default)]
    draft: Option<ScopeRules>,
}

/// `POST /v1/rules/simulate`: what a call would get under a draft, with every step; and what it gets now.
pub(crate) async fn simulate(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(asked): Body<Simulate>,
) -> Result<Json<Value>, ApiError> {
    let org = who.org();
    let principal = match asked.principal {
        Some(principal) => principal,
        None => who.principal_name()?,
    };
    let tenant = asked.call.tenant_id.clone();
    let policy = app.rulesets.policy(&app, org, tenant.as_ref()).await?;
    let call = asked.call.names(&policy, org, principal, tenant.clone());
    let now = policy.decide(&call).map_err(|e| undecided(&e))?;
    let Some(draft) = asked.draft else {
        let (decision, trace) = policy.explain(&call).map_err(|e| undecided(&e))?;
        return Ok(Json(json!({"decision": decision, "trace": trace, "current": now})));
    };
    let scope = draft.tenant_id.as_ref();
    let mut db = app.db.snapshot(org).await?;
    let mut org_policy = decide::org_policy(&mut db, org).await?;
    let mut tenant_rules = match &tenant {
        Some(tenant) => rules::of_scope(&mut db, org, Some(tenant)).await?,
        None => Vec::new(),
    };
    drop(db);
    let drafted = in_scope(draft.rules, scope)?;
    match scope {
        None => org_policy.rules = drafted,
        Some(scope) if Some(scope) == tenant.as_ref() => tenant_rules = drafted,
        Some(_) => {
            let detail = "The call is not of this tenant: the draft has no part in it.";
            return Err(ApiError::invalid_value("/draft/tenant_id", detail));
        }
    }
    let refused =
        |e: oakallow_policy::ruleset::CompileError| ApiError::invalid_value("/draft", format!("{e}."));
    let mut set = RuleSet::compile(&org_policy, policy.version()).map_err(refused)?;
    if let Some(tenant) = &tenant {
        set.load_tenant(tenant, &tenant_rules).map_err(refused)?;
    }
    let explained = set.explain(&call.as_call()).map_err(|e| undecided(&e))?;
    Ok(Json(json!({"decision": explained.decision, "trace": explained.trace, "current": now})))
}
