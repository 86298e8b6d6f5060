//! Permits: none without a decision that allows the call, or an approval consumed for exactly this call.

#![allow(clippy::unwrap_used, reason = "a test")]

use oakallow_policy::document::Document;
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::permit::{Consumption, NoPermit};
use oakallow_policy::{Call, Decision, Permission, Permit, PermitReason, RuleSet};

const POLICY: &str = "
org: demo
tools:
  - {name: read, approved: true}
  - {name: restart, default_permission: requires_approval}
  - {name: drop, default_permission: disabled}
";

fn rules() -> RuleSet {
    Document::parse("policy", POLICY).unwrap().compile(7).unwrap()
}

fn decide<'r>(rules: &'r RuleSet, tool: &str) -> Decision<'r> {
    let (org, principal, audience) = ("demo", "agent-1", "default");
    rules
        .resolve(&Call { org, tenant: None, principal, audience, tool, resource: None, method: None })
        .unwrap()
}

fn fingerprint(digit: &str) -> Fingerprint {
    Fingerprint::parse(&digit.repeat(64)).unwrap()
}

fn consumed() -> Consumption {
    Consumption { approval_id: "apr_1".into(), fingerprint: fingerprint("a"), txn: "txn_1".into() }
}

#[test]
fn by_rule_only_when_allowed() {
    let rules = rules();
    let permit = Permit::by_rule(&decide(&rules, "read")).unwrap();
    assert_eq!((permit.reason(), permit.approval(), permit.policy_version()), (PermitReason::Rule, None, 7));
    let refused = |tool, permission| {
        assert_eq!(Permit::by_rule(&decide(&rules, tool)), Err(NoPermit::NotAllowed(permission)));
    };
    refused("restart", Permission::RequiresApproval);
    refused("drop", Permission::Disabled);
    refused("nobody", Permission::RequiresApproval);
}

#[test]
fn by_approval_only_for_the_call_and_the_life_it_was_consumed_for() {
    let rules = rules();
    let by = |tool, call: &str, txn| {
        Permit::by_approval(&decide(&rules, tool), &consumed(), fingerprint(call), txn)
    };
    let permit = by("restart", "a", "txn_1").unwrap();
    assert_eq!((permit.reason(), permit.approval()), (PermitReason::Approval, Some("apr_1")));
    assert_eq!(by("restart", "b", "txn_1"), Err(NoPermit::OtherCall));
    assert_eq!(by("restart", "a", "txn_2"), Err(NoPermit::OtherTxn));
    // Decided again at release: an approval does not lift what is disabled since.
    assert_eq!(by("drop", "a", "txn_1"), Err(NoPermit::NotApprovable(Permission::Disabled)));
    // And what is allowed now needs none: it is cancelled, not consumed.
    assert_eq!(by("read", "a", "txn_1"), Err(NoPermit::NotApprovable(Permission::Allowed)));
}
