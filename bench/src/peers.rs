//! The same policy for other engines, each in the fastest form known to give the right answer.
//!
//! Both get the answers of levels 1 to 8 of tenant and org as one look-up table, keyed by strings that
//! the caller builds, since that beats any form in which the engine itself walks the rules. What is
//! left (tool defaults, fail-safe) is the last branch of their expression.

use std::collections::BTreeMap;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, EvalResult, Expression, Request,
    RestrictedExpression, eval_expression,
};
use oakallow_policy::{Permission, Rule};

use crate::workload::{OwnedCall, Workload};

/// The selectors of levels 1 to 8: which of tool, resource, method a rule names.
const SELECTORS: [(bool, bool, bool); 8] = [
    (true, true, true),
    (true, true, false),
    (true, false, true),
    (true, false, false),
    (false, true, true),
    (false, true, false),
    (false, false, true),
    (false, false, false),
];

fn key(tool: Option<&str>, resource: Option<&str>, method: Option<&str>) -> String {
    let mut key = String::with_capacity(48);
    for part in [tool, resource, method] {
        key.push_str(part.unwrap_or("*"));
        key.push('|');
    }
    key
}

fn rule_key(rule: &Rule) -> String {
    key(rule.tool.as_deref(), rule.resource.as_deref(), rule.method.as_deref())
}

fn call_keys(call: &OwnedCall) -> [String; 8] {
    SELECTORS.map(|(t, r, m)| {
        key(t.then_some(&*call.tool), r.then_some(&*call.resource), m.then_some(&*call.method))
    })
}

/// Cedar: one entity per scope whose tags are the rules, and one expression over two of them, run by
/// `eval_expression` (no authorizer around it).
pub struct Cedar {
    entities: Entities,
    expression: Expression,
    action: EntityUid,
    org: EntityUid,
    tenant_type: EntityTypeName,
}

impl Cedar {
    /// Builds the entities.
    pub fn new(workload: &Workload) -> anyhow::Result<Self> {
        let tenant_type: EntityTypeName = "Tenant".parse()?;
        let org: EntityUid = r#"Org::"bench""#.parse()?;
        let mut entities = vec![scope_entity(org.clone(), &workload.policy.rules)?];
        for (tenant, rules) in &workload.tenants {
            let uid = EntityUid::from_type_name_and_id(tenant_type.clone(), EntityId::new(tenant.as_str()));
            entities.push(scope_entity(uid, rules)?);
        }
        for tool in &workload.policy.tools {
            let uid = EntityUid::from_type_name_and_id("Tool".parse()?, EntityId::new(tool.name.as_str()));
            let fallback = if tool.approved { Permission::Allowed } else { Permission::RequiresApproval };
            let tag = (String::from("fallback"), text(fallback));
            entities.push(Entity::new_with_tags(uid, [], [], [tag])?);
        }
        Ok(Self {
            entities: Entities::from_entities(entities, None)?,
            expression: cedar_expression().parse()?,
            action: r#"Action::"call""#.parse()?,
            org,
            tenant_type,
        })
    }

    /// Decides a call; all that has to be built for it is part of the work.
    pub fn decide(&self, call: &OwnedCall) -> anyhow::Result<Permission> {
        let tenant = EntityUid::from_type_name_and_id(self.tenant_type.clone(), EntityId::new(&*call.tenant));
        let tool = EntityUid::from_type_name_and_id("Tool".parse()?, EntityId::new(&*call.tool));
        let pairs = call_keys(call)
            .into_iter()
            .zip(CONTEXT_KEYS)
            .map(|(key, name)| (name.to_owned(), RestrictedExpression::new_string(key)))
            .chain([("tool".to_owned(), RestrictedExpression::new_entity_uid(tool))]);
        let context = Context::from_pairs(pairs)?;
        let request = Request::new(tenant, self.action.clone(), self.org.clone(), context, None)?;
        match eval_expression(&request, &self.entities, &self.expression)? {
            EvalResult::String(name) => permission(&name),
            other => anyhow::bail!("not a string: {other}"),
        }
    }
}

const CONTEXT_KEYS: [&str; 8] = ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"];

fn cedar_expression() -> String {
    let tail = r#"context.tool.getTag("fallback")"#.to_owned();
    ["resource", "principal"].iter().fold(tail, |tail, scope| {
        CONTEXT_KEYS.iter().rev().fold(tail, |tail, k| {
            format!("if {scope}.hasTag(context.{k}) then {scope}.getTag(context.{k}) else {tail}")
        })
    })
}

fn scope_entity(uid: EntityUid, rules: &[Rule]) -> anyhow::Result<Entity> {
    let tags = rules.iter().map(|rule| (rule_key(rule), text(rule.permission.otherwise())));
    Ok(Entity::new_with_tags(uid, [], [], tags)?)
}

fn text(permission: Permission) -> RestrictedExpression {
    RestrictedExpression::new_string(permission.as_str().to_owned())
}

fn permission(name: &str) -> anyhow::Result<Permission> {
    Permission::parse(name).ok_or_else(|| anyhow::anyhow!("no permission: {name}"))
}

/// Rego in regorus: the rules as data objects by scope and key, a chain of `else` over the keys.
pub struct Rego {
    engine: regorus::Engine,
}

impl Rego {
    /// Builds the data document and compiles the policy.
    pub fn new(workload: &Workload) -> anyhow::Result<Self> {
        let mut engine = regorus::Engine::new();
        engine.add_policy("decide.rego".to_owned(), rego_policy())?;
        let table = |rules: &[Rule]| {
            let entries =
                rules.iter().map(|r| (rule_key(r).into(), r.permission.otherwise().as_str().into()));
            regorus::Value::from(entries.collect::<BTreeMap<regorus::Value, regorus::Value>>())
        };
        let tenants: BTreeMap<regorus::Value, regorus::Value> =
            workload.tenants.iter().map(|(t, rules)| (t.as_str().into(), table(rules))).collect();
        let fallbacks: BTreeMap<regorus::Value, regorus::Value> = workload
            .policy
            .tools
            .iter()
            .map(|t| {
                (t.name.as_str().into(), (if t.approved { "allowed" } else { "requires_approval" }).into())
            })
            .collect();
        let data = BTreeMap::from([
            ("tenants".into(), tenants.into()),
            ("org".into(), table(&workload.policy.rules)),
            ("fallbacks".into(), fallbacks.into()),
        ]);
        engine.add_data(data.into())?;
        Ok(Self { engine })
    }

    /// Decides a call.
    pub fn decide(&mut self, call: &OwnedCall) -> anyhow::Result<Permission> {
        let keys: Vec<regorus::Value> = call_keys(call).into_iter().map(Into::into).collect();
        let input = BTreeMap::from([
            ("tenant".into(), (&*call.tenant).into()),
            ("tool".into(), (&*call.tool).into()),
            ("k".into(), keys.into()),
        ]);
        self.engine.set_input(input.into());
        let value = self.engine.eval_rule("data.decide.permission".to_owned())?;
        permission(value.as_string()?)
    }
}

fn rego_policy() -> String {
    let tenant = (0..8).map(|i| format!("data.tenants[input.tenant][input.k[{i}]]"));
    let org = (0..8).map(|i| format!("data.org[input.k[{i}]]"));
    let looked_up: Vec<String> = tenant.chain(org).chain(["data.fallbacks[input.tool]".to_owned()]).collect();
    let bodies: Vec<String> = looked_up.iter().map(|value| format!(":= v if {{ v := {value} }}")).collect();
    format!("package decide\nimport rego.v1\npermission {}\n", bodies.join(" else "))
}
