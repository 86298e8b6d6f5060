//! A decision allocates nothing, however it ends; what a call is read into is bounded, whatever its body is.

#![allow(clippy::unwrap_used, reason = "a test")]

use oakallow_policy::Call;
use oakallow_policy::document::Document;
use oakallow_policy::strict_json::{self, CALL_DEPTH_MAX, JsonError};

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

#[test]
fn a_flood_of_small_values_takes_no_more_memory_than_one_call_may() {
    const MIB: u64 = 1024 * 1024;
    let deep = CALL_DEPTH_MAX - 1;
    let nested = format!("{}0{}", r#"{"":"#.repeat(deep), "}".repeat(deep));
    for part in ["0", "[0]", "{}", r#"{"":0}"#, &nested] {
        let parts = 4 * 1024 * 1024 / (part.len() + 1);
        let flood = format!("[{}]", vec![part; parts].join(","));
        let mut read = None;
        let counted = allocation_counter::measure(|| read = Some(strict_json::parse(flood.as_bytes())));
        assert!(matches!(read, Some(Err(JsonError::TooMany { .. }))), "{part}");
        assert!(counted.bytes_max < 80 * MIB, "{part}: {counted:?}");
    }
}
