//! A decision allocates nothing, however it ends.

#![allow(clippy::unwrap_used, reason = "a test")]

use oakallow_policy::Call;
use oakallow_policy::document::Document;

const POLICY: &str = "
org: demo
tenants: [acme]
tools:
  - {name: read, approved: true}
  - {name: restart, resource: required}
  - {name: off, enabled: false}
kill_switches: [{scope: agent, id: agent-9}]
rules:
  - {id: a, tenant: acme, tool: restart, resource: db, method: now, permission: allowed}
  - {id: b, resource: web, permission: disabled}
  - {id: c, resource: vault, permission: disabled, guardrail: true}
";

#[test]
fn deciding_allocates_nothing() {
    let rules = Document::parse("policy", POLICY).unwrap().compile(7).unwrap();
    let names = [Some("db"), Some("web"), Some("vault"), Some("elsewhere"), None];
    let mut decided = 0;
    let counted = allocation_counter::measure(|| {
        for tenant in [None, Some("acme"), Some("nobody")] {
            for principal in ["agent-1", "agent-9"] {
                for tool in ["read", "restart", "off", "nobody"] {
                    for resource in names {
                        let (org, audience, method) = ("demo", "default", Some("now"));
                        let call = Call { org, tenant, principal, audience, tool, resource, method };
                        decided += usize::from(rules.resolve(&call).is_ok());
                    }
                }
            }
        }
    });
    assert!(decided > 60, "{decided}");
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
