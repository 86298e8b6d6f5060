//! `oakallow explain` and `oakallow policy test` of a policy that is kept in a directory or at a backend.

mod support;

use serde_json::json;
use support::{Place, repository, stderr, stdout};

async fn place() -> Place {
    let place = Place::start().await;
    place.post("/v1/tenants", json!({"id": "acme"})).await;
    place
        .post("/v1/tools", json!({"name": "read", "audience": "ops", "default_permission": "disabled"}))
        .await;
    place.post("/v1/rules", json!({"tenant_id": "acme", "tool_name": "read", "permission": "allowed"})).await;
    assert!(place.oakallow(&["policy", "pull"]).await.status.success());
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_and_the_files_explain_a_call_in_the_same_way() {
    let place = place().await;
    let call = ["explain", "--tool", "read", "--tenant", "acme"];
    let live = place.oakallow(&call).await;
    assert!(live.status.success(), "{}", stderr(&live));
    let files = place.oakallow(&[&call[..], &["--policy", "policy"]].concat()).await;
    assert!(files.status.success(), "{}", stderr(&files));
    for said in [stdout(&live), stdout(&files)] {
        assert!(said.starts_with("allowed  (resolved_from: tenant_tool)"), "{said}");
        assert!(said.contains("=> 4      tenant_tool") && said.contains("tool_default"), "{said}");
        assert!(said.contains("overridden") && said.contains("12     fail_safe"), "{said}");
        assert_eq!(said.lines().count(), 3 + 23, "{said}");
    }
    let json = place.oakallow(&[&call[..], &["--json"]].concat()).await;
    let explained: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(explained["decision"]["policy_version"], place.policy_version().await);
    let unknown = place.oakallow(&["explain", "--tool", "read", "--tenant", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("tenant"), "{}", stderr(&unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_directory_is_tested_before_it_is_applied() {
    let place = place().await;
    let cases = "policy: policy\ncases:\n  - name: acme reads\n    call: {tenant: acme, tool: read}\n    \
                 expect: {permission: allowed, resolved_from: tenant_tool}\n";
    let tests = place.write("tests.yaml", cases);
    let passed = place.oakallow(&["policy", "test", &tests]).await;
    assert!(stdout(&passed).contains("1 passed, 0 failed"), "{}{}", stdout(&passed), stderr(&passed));
    place.write("draft/policy.yaml", "org: demo\ntenants: [acme]\n");
    place.write("draft/tools/ops.yaml", "tools: [{name: read, audience: ops}]\n");
    let failed = place.oakallow(&["policy", "test", &tests, "--policy", "draft"]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stdout(&failed).contains("acme reads") && stdout(&failed).contains("fail_safe"),
        "{}",
        stdout(&failed)
    );
    let broken = place.oakallow(&["policy", "test", &tests, "--policy", "nowhere"]).await;
    assert_eq!(broken.status.code(), Some(1));
    let example = repository("config/policy-tests.yaml").display().to_string();
    assert!(place.oakallow(&["policy", "test", &example]).await.status.success());
}
