//! `oakallow policy`: from a backend to files and back; and that what was planned is what is made.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Place, stderr, stdout};

/// A backend with a little of everything.
async fn place() -> Place {
    let place = Place::start().await;
    place.post("/v1/tenants", json!({"id": "acme"})).await;
    place.post("/v1/categories", json!({"name": "data", "default_permission": "requires_approval"})).await;
    place
        .post("/v1/tools", json!({"name": "read", "audience": "ops", "category": "data", "approved": true}))
        .await;
    place.post("/v1/tools", json!({"name": "drop", "audience": "ops", "risk_level": "critical"})).await;
    place.post("/v1/rules", json!({"tool_name": "read", "permission": "allowed"})).await;
    place
        .post("/v1/rules", json!({"tenant_id": "acme", "tool_name": "drop", "permission": "disabled"}))
        .await;
    place
}

async fn pulled(place: &Place) {
    let done = place.oakallow(&["policy", "pull"]).await;
    assert!(done.status.success(), "{}", stderr(&done));
}

fn edit(place: &Place, file: &str, from: &str, to: &str) {
    let path = place.path("policy").join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_is_no_difference_and_is_pulled_as_the_same_bytes() {
    let place = place().await;
    pulled(&place).await;
    let plan = place.oakallow(&["policy", "plan"]).await;
    assert_eq!(plan.status.code(), Some(0), "{}{}", stdout(&plan), stderr(&plan));
    assert!(stdout(&plan).contains("0 to create, 0 to change, 0 to delete"));
    let files = ["policy.yaml", "tools/ops.yaml", "rules/org.yaml", "rules/tenants/acme.yaml"];
    let read = |dir: &str| files.map(|file| fs::read_to_string(place.path(dir).join(file)).unwrap());
    let other = place.oakallow(&["policy", "pull", "other"]).await;
    assert!(other.status.success());
    assert_eq!(read("policy"), read("other"));
    let checked = place.oakallow(&["check", "policy"]).await;
    assert!(checked.status.success() && stdout(&checked).contains("2 tools"), "{}", stdout(&checked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_every_difference_and_apply_makes_them() {
    let place = place().await;
    pulled(&place).await;
    edit(&place, "tools/ops.yaml", "approved: true", "enabled: false");
    edit(&place, "rules/org.yaml", "permission: allowed", "permission: requires_approval");
    edit(&place, "rules/tenants/acme.yaml", "tool: drop", "tool: read");
    edit(&place, "policy.yaml", "- acme", "- acme\n- globex");
    place.write("policy/tools/new.yaml", "tools: [{name: new, default_permission: disabled}]");
    let plan = place.oakallow(&["policy", "plan"]).await;
    assert_eq!(plan.status.code(), Some(2), "{}", stderr(&plan));
    let said = stdout(&plan);
    for part in [
        "+ tenant globex",
        "~ tool read\n    /approved: true -> false\n    /enabled: true -> false\n",
        "~ rules of the org\n    ~ tool=read: allowed -> requires_approval\n",
        "    - tool=drop: disabled\n    + tool=read: disabled\n",
        "+ tool new",
        "2 to create, 3 to change, 0 to delete",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let unsaid = place.oakallow(&["policy", "apply"]).await;
    assert_eq!(unsaid.status.code(), Some(2));
    assert_eq!(place.get("/v1/tools/read").await["enabled"], true, "nobody said yes");
    let done = place.oakallow(&["policy", "apply", "--yes"]).await;
    assert_eq!(done.status.code(), Some(0), "{}{}", stdout(&done), stderr(&done));
    assert_eq!(place.oakallow(&["policy", "plan"]).await.status.code(), Some(0));
    let tool = place.get("/v1/tools/read").await;
    assert_eq!((&tool["enabled"], &tool["approved"]), (&json!(false), &json!(false)));
    assert_eq!(place.get("/v1/tools/new").await["default_permission"], "disabled");

    fs::remove_file(place.path("policy/tools/new.yaml")).unwrap();
    edit(&place, "policy.yaml", "\n- globex", "");
    let done = place.oakallow(&["policy", "apply", "--yes"]).await;
    assert!(done.status.success() && stdout(&done).contains("- tool new"), "{}", stdout(&done));
    assert!(stdout(&done).contains("tenant globex is not in the files: it stays"), "{}", stdout(&done));
    assert_eq!(place.get("/v1/tools").await["data"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_plan_is_made_as_it_is_and_only_while_nothing_else_changed() {
    let place = place().await;
    pulled(&place).await;
    edit(&place, "rules/org.yaml", "permission: allowed", "permission: disabled");
    let plan = place.oakallow(&["policy", "plan", "--out", "plan.json"]).await;
    assert_eq!(plan.status.code(), Some(2));
    // What is planned is made, whatever the files say by now.
    edit(&place, "rules/org.yaml", "permission: disabled", "permission: requires_approval");
    place.post("/v1/tenants", json!({"id": "globex"})).await;
    let apply = ["policy", "apply", "--plan", "plan.json", "--yes"];
    let refused = place.oakallow(&apply).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("changed since the plan was made"), "{}", stderr(&refused));
    assert_eq!(org_rule(&place).await, "allowed");
    let forced = place.oakallow(&[&apply[..], &["--even-if-changed"]].concat()).await;
    assert!(forced.status.success(), "{}", stderr(&forced));
    assert_eq!(org_rule(&place).await, "disabled");
}

async fn org_rule(place: &Place) -> Value {
    place.get("/v1/rules?scope=org").await["data"][0]["permission"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_more_than_a_policy_is_refused() {
    let place = place().await;
    let plan = |path: &str| {
        json!({"format": 1, "org": "demo", "policy_version": 1, "changes": [
            {"act": "create", "what": "tool x", "details": [], "method": "POST", "path": path, "body": {}}]})
        .to_string()
    };
    for path in ["/v1/keys", "/v1/tools/../keys", "/v1/toolsmith", "http://127.0.0.1:1/v1/tools"] {
        place.write("plan.json", &plan(path));
        let refused =
            place.oakallow(&["policy", "apply", "--plan", "plan.json", "--yes", "--even-if-changed"]).await;
        assert!(stderr(&refused).contains("no part of a policy"), "{path}: {}", stderr(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_one_org_are_not_applied_to_another() {
    let place = place().await;
    pulled(&place).await;
    edit(&place, "policy.yaml", "org: demo", "org: production");
    let refused = place.oakallow(&["policy", "apply", "--yes"]).await;
    assert!(
        stderr(&refused).contains("of org `production`, and the key is of org `demo`"),
        "{}",
        stderr(&refused)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_a_file_is_shown_with_its_place_and_nothing_is_changed() {
    let place = place().await;
    pulled(&place).await;
    let version = place.policy_version().await;
    place.write("policy/rules/more.yaml", "rules:\n  - tool: read\n    permission: allowed\n");
    let refused = place.oakallow(&["policy", "apply", "--yes"]).await;
    let said = stderr(&refused);
    assert!(said.contains("policy/rules/") && said.contains(".yaml:2:"), "{said}");
    assert!(said.contains("the same scope and selector"), "{said}");
    assert_eq!(place.policy_version().await, version);
}
