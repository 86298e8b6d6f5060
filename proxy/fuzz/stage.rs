//! What the targets have in common: two routes, a policy with one tool, a caller.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use oakallow_policy::RuleSet;
use oakallow_policy::id::Name;
use oakallow_policy::ruleset::OrgPolicy;
use oakallow_proxy::config::Config;
use oakallow_proxy::identity::{Caller, Credential};
use oakallow_proxy::policy::Snapshot;
use oakallow_proxy::route::Route;
use serde_json::json;

const CONFIG: &str = "
listen: {data: 127.0.0.1:0, ops: 127.0.0.1:0, admin: 127.0.0.1:0}
state_dir: nowhere
backend: {url: http://127.0.0.1:1}
routes:
  - {name: http, kind: http, path: '/tools/{tool}', audience: bank, upstream: http://127.0.0.1:1, resources: {pay: /to}}
  - {name: mcp, kind: mcp, path: /mcp, audience: bank, upstream: http://127.0.0.1:1, resources: {pay: /to}}
";

/// The stage on which inputs play.
pub struct Stage {
    /// `POST /tools/{tool}`
    pub http: Arc<Route>,
    /// `POST /mcp`
    pub mcp: Arc<Route>,
    /// A policy with the tool `pay`, whose argument `to` is the resource.
    pub snapshot: Snapshot,
    /// Who calls.
    pub caller: Caller,
}

/// The one stage.
pub static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let name = |text: &str| Name::new(text).expect("a name");
    let config = Config::parse("fuzz.yaml", CONFIG).expect("a configuration");
    let route =
        |name: &str| config.routes.iter().find(|route| route.name.as_str() == name).expect("a route").clone();
    let schema = json!({"type": "object", "properties": {"to": {"type": "string"}}});
    let policy =
        json!({"org": "demo", "tools": [{"name": "pay", "audience": "bank", "parameter_schema": schema}]});
    let policy: OrgPolicy = serde_json::from_value(policy).expect("a policy");
    let rules = RuleSet::compile(&policy, 1).expect("a policy that compiles");
    Stage {
        http: route("http"),
        mcp: route("mcp"),
        snapshot: Snapshot { rules, keys: HashMap::new(), token_keys: HashMap::new() },
        caller: Caller {
            credential: Credential::Key("00".repeat(32)),
            principal: name("agent"),
            tenant: None,
            owner: None,
            token_email: None,
        },
    }
});
