//! Policy documents: no panic, no blow-up; an accepted document compiles, each of its rules decides a
//! call that names exactly what the rule selects by (or a stricter thing does), and explaining agrees
//! with deciding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oakallow_policy::Call;
use oakallow_policy::document::Document;

fuzz_target!(|text: &str| {
    let document = match Document::parse("fuzz.yaml", text) {
        Ok(document) => document,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let rules = document.compile(1).expect("it was checked");
    let all = document.policy.rules.iter().chain(document.tenant_rules.values().flatten());
    for rule in all {
        let tool = rule.tool.as_deref().unwrap_or("some-tool");
        let audience = rules.tool_anywhere(tool).map_or("default", |t| t.audience.as_str());
        let call = Call {
            org: &document.policy.org,
            tenant: rule.tenant.as_deref(),
            principal: "agent",
            audience,
            tool,
            resource: rule.resource.as_deref(),
            method: rule.method.as_deref(),
        };
        let Ok(decision) = rules.resolve(&call) else { continue };
        let explained = rules.explain(&call).expect("what is decided can be explained");
        assert_eq!(explained.decision, decision);
        let registered = rules.tool(tool, audience).is_some();
        if let Some(level) = decision.level() {
            assert!(level <= rule.level() || (rule.tool.is_some() && !registered), "a rule was passed over");
        }
    }
});
