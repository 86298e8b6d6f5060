//! `oakallow import openapi` against a backend: the plan, what it makes, and that a second time makes nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use support::{Place, stderr, stdout};

const PETS: &str = include_str!("pets.yaml");

fn pets(place: &Place) -> String {
    place.write("pets.yaml", PETS)
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_become_tools_that_are_safe_by_default() {
    let place = Place::start().await;
    let file = pets(&place);
    let done = place.oakallow(&["import", "openapi", &file, "--audience", "pets", "--yes"]).await;
    assert_eq!(done.status.code(), Some(0), "{}{}", stdout(&done), stderr(&done));
    let said = stdout(&done);
    for part in
        ["+ category pets", "+ tool listPets", "GET /pets: low risk, no default permission", "6 to create"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }

    let list = place.get("/v1/tools/listPets").await;
    assert_eq!(list["default_permission"], Value::Null, "{list}");
    assert_eq!((&list["risk_level"], &list["audience"]), (&json!("low"), &json!("pets")));
    assert_eq!(list["category"], "pets");
    let limit = &list["parameter_schema"]["properties"]["limit"];
    assert_eq!(
        limit,
        &json!({"type": ["integer", "null"], "exclusiveMinimum": 0, "description": "How many"})
    );
    for (tool, risk) in [("createPet", "medium"), ("put_pets_petId", "medium"), ("deletePet", "high")] {
        let tool = place.get(&format!("/v1/tools/{tool}")).await;
        assert_eq!(
            (&tool["default_permission"], &tool["risk_level"]),
            (&json!("requires_approval"), &json!(risk))
        );
        assert_eq!((&tool["approved"], &tool["enabled"]), (&json!(false), &json!(true)));
    }
    let create = place.get("/v1/tools/createPet").await;
    let schema = &create["parameter_schema"];
    assert_eq!(schema["required"], json!(["body"]));
    assert_eq!(schema["properties"]["body"], json!({"$ref": "#/$defs/Pet"}));
    assert_eq!(schema["$defs"]["Pet"]["properties"]["friends"]["items"], json!({"$ref": "#/$defs/Pet"}));
    let replace = place.get("/v1/tools/put_pets_petId").await;
    assert_eq!(replace["parameter_schema"]["required"], json!(["petId", "body"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_time_changes_nothing_and_a_new_document_only_what_is_new() {
    let place = Place::start().await;
    let file = pets(&place);
    let import = ["import", "openapi", &file, "--yes"];
    assert!(place.oakallow(&import).await.status.success());
    let version = place.policy_version().await;
    let again = place.oakallow(&import).await;
    assert!(
        again.status.success()
            && stdout(&again).contains("0 to create, 0 to change, 0 to delete, 5 unchanged")
    );
    assert_eq!(place.policy_version().await, version, "nothing was written");

    // What somebody decided stays; what was approved is not what it is now.
    place.patch("/v1/tools/createPet", json!({"approved": true, "risk_level": "critical"})).await;
    fs::write(&file, PETS.replace("Add a pet", "Add a pet for good").replace("minimum: 0", "minimum: 1"))
        .unwrap();
    let changed = place.oakallow(&import).await;
    let said = stdout(&changed);
    for part in [
        "~ tool createPet\n",
        "/approved: true -> false",
        "/description: \"Add a pet\" -> \"Add a pet for good\"",
        "/parameter_schema/properties/limit/exclusiveMinimum: 0 -> 1",
        "0 to create, 2 to change, 0 to delete, 3 unchanged",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let tool = place.get("/v1/tools/createPet").await;
    assert_eq!((&tool["approved"], &tool["risk_level"]), (&json!(false), &json!("critical")));
    assert_eq!(tool["description"], "Add a pet for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_unless_somebody_says_so() {
    let place = Place::start().await;
    let file = pets(&place);
    let asked = place.oakallow(&["import", "openapi", &file]).await;
    assert_eq!(asked.status.code(), Some(2), "{}", stderr(&asked));
    assert!(stdout(&asked).contains("+ tool listPets") && stdout(&asked).contains("say --yes"));
    assert_eq!(place.get("/v1/tools").await["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn clashes_and_what_cannot_be_read_are_told_and_nothing_is_made_of_the_rest() {
    let place = Place::start().await;
    place.post("/v1/tools", json!({"name": "listPets", "audience": "zoo"})).await;
    let text = PETS.replace("operationId: deletePet", "operationId: createPet");
    let text = text.replace("'#/components/parameters/petId'", "'other.yaml#/petId'");
    let file = place.write("clash.yaml", &text);
    let import = ["import", "openapi", &file, "--audience", "pets", "--yes"];
    let refused = place.oakallow(&import).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = stdout(&refused);
    for part in [
        "! GET /pets: its name `listPets` is registered for audience `zoo`",
        "! POST /pets: its name `createPet` is that of DELETE /admin/pets too",
        "! DELETE /admin/pets: its name `createPet` is that of POST /pets too",
        "! PUT /pets/{petId}: `other.yaml#/petId` leads out of the document",
        "--skip-refused",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(place.get("/v1/tools").await["data"].as_array().unwrap().len(), 1);

    let skipped = place.oakallow(&[&import[..], &["--skip-refused"]].concat()).await;
    assert!(skipped.status.success(), "{}", stderr(&skipped));
    assert_eq!(place.get("/v1/tools/listPets").await["audience"], "zoo");
    assert_eq!(place.get("/v1/tools/getToys").await["audience"], "pets");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_comes_from_a_url_too_and_not_without_end() {
    let place = Place::start().await;
    let served = support::serve(PETS.into()).await;
    let done = place.oakallow(&["import", "openapi", &format!("{served}/pets?token=secret"), "--yes"]).await;
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stdout(&done).contains("5 unchanged") || stdout(&done).contains("6 to create"));
    assert!(!stdout(&done).contains("secret"));
    let endless = support::serve(vec![b' '; 17 << 20].into()).await;
    let refused = place.oakallow(&["import", "openapi", &endless, "--yes"]).await;
    assert!(stderr(&refused).contains("larger than 16 MiB"), "{}", stderr(&refused));
    let nobody = place.oakallow(&["import", "openapi", "http://127.0.0.1:1/x?token=secret", "--yes"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(!stderr(&nobody).contains("secret"), "{}", stderr(&nobody));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_does_the_same_and_changes_nothing_a_second_time() {
    let place = Place::start().await;
    let file = place.write("pets.yaml", &PETS.replace("Add a pet", "Add a pet; it's $(touch pwned) `x`"));
    let printed =
        place.oakallow(&["import", "openapi", &file, "--audience", "pets", "--script", "curl"]).await;
    assert!(printed.status.success(), "{}", stderr(&printed));
    assert!(!stdout(&printed).contains("oak_live_"));
    let script = place.write("seed.sh", &stdout(&printed));
    let first = place.bash(&script).await;
    assert!(first.status.success(), "{}{}", stdout(&first), stderr(&first));
    let version = place.policy_version().await;
    let import = place.oakallow(&["import", "openapi", &file, "--audience", "pets", "--yes"]).await;
    assert!(
        stdout(&import).contains("0 to create, 0 to change, 0 to delete, 5 unchanged"),
        "{}",
        stdout(&import)
    );
    let second = place.bash(&script).await;
    assert!(second.status.success() && stdout(&second).contains("unchanged"), "{}", stderr(&second));
    assert_eq!(place.policy_version().await, version, "nothing was written");
    assert!(!place.path("pwned").exists());

    let changed =
        place.write("seed.sh", &fs::read_to_string(&script).unwrap().replace("Add a pet", "Add one"));
    assert!(place.bash(&changed).await.status.success());
    assert!(place.get("/v1/tools/createPet").await["description"].as_str().unwrap().starts_with("Add one"));
}

#[test]
fn a_key_is_asked_for_by_name_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pets.yaml");
    fs::write(&file, PETS).unwrap();
    let run = |key: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oakallow"));
        command
            .args(["import", "openapi", "--backend", "http://127.0.0.1:1"])
            .arg(&file)
            .stdin(Stdio::null());
        command.env_remove("OAKALLOW_MANAGEMENT_KEY");
        command.envs(key.map(|key| ("OAKALLOW_MANAGEMENT_KEY", key)));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    assert!(run(None).contains("set OAKALLOW_MANAGEMENT_KEY"));
    let other = run(Some("oak_agent_0123456789abcdef"));
    assert!(other.contains("does not hold a management key") && !other.contains("0123456789"), "{other}");
    let key = "oak_live_0123456789abcdef0123456789abcdef";
    let nobody = run(Some(key));
    assert!(nobody.contains("cannot be asked") && !nobody.contains(key), "{nobody}");
}

/// A backend that has nothing, goes so many versions on with each change, and says when one is asked of it.
async fn slow_backend(asked: tokio::sync::mpsc::Sender<()>, step: u64) -> String {
    let version = Arc::new(AtomicU64::new(1));
    let now = Arc::clone(&version);
    let simulate =
        post(
            move || async move { Json(json!({"decision": {"policy_version": now.load(Ordering::SeqCst)}})) },
        );
    let tool = get(|| async { Json(json!({"data": [], "next_cursor": null})) }).post(move || async move {
        version.fetch_add(step, Ordering::SeqCst);
        let _ = asked.send(()).await;
        Json(json!({}))
    });
    let categories = get(|| async { Json(json!({"data": [], "next_cursor": null})) });
    let router = Router::new()
        .route("/v1/rules/simulate", simulate)
        .route("/v1/tools", tool)
        .route("/v1/categories", categories);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// An import of so many tools into that backend.
fn many(dir: &tempfile::TempDir, tools: usize, url: &str) -> Command {
    let file = dir.path().join("many.yaml");
    let paths: String = (0..tools)
        .map(|i| format!("  /p{i}:\n    post: {{operationId: tool{i}, responses: {{}}}}\n"))
        .collect();
    fs::write(&file, format!("openapi: 3.1.0\npaths:\n{paths}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oakallow"));
    command.args(["import", "openapi", "--yes", "--backend", url]).arg(&file);
    command.env("OAKALLOW_MANAGEMENT_KEY", "oak_live_0123456789abcdef0123456789abcdef");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_when_somebody_else_changes_the_policy_meanwhile() {
    let (asked, _asks) = tokio::sync::mpsc::channel(10);
    let url = slow_backend(asked, 2).await;
    let dir = tempfile::tempdir().unwrap();
    let mut command = many(&dir, 3, &url);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("1 of 3 changes were made") && said.contains("somebody else changed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_it_between_two_changes_and_it_says_how_far_it_came() {
    // Each change waits until the test takes note of it, so none is made that nobody sees.
    let (asked, mut asks) = tokio::sync::mpsc::channel(1);
    let url = slow_backend(asked, 1).await;
    let dir = tempfile::tempdir().unwrap();
    let child = many(&dir, 200, &url).spawn().unwrap();
    asks.recv().await.unwrap();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let end = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let mut seen = 1;
    tokio::pin!(end);
    let output = loop {
        tokio::select! {
            output = &mut end => break output.unwrap(),
            Some(()) = asks.recv() => seen += 1,
        }
    };
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("stopped: ") && said.contains("of 200 changes were made"), "{said}");
    assert!(seen < 200, "{seen}");
}
