//! Running it: quick start, metrics, health, an orderly end, and no secret anywhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use oakallow_e2e::agent::Agent;
use oakallow_e2e::stack::Stack;
use serde_json::json;

/// Values that no file but the encrypted ones may show.
const SECRET_PASSWORD: &str = "hunter2-correct-horse";
const SECRET_KEY: &str = "sk-4f9c2a7be1d84c0fa2";
/// Test numbers of card networks: they pass the check digit, and belong to nobody.
const CARD: &str = "4111 1111 1111 1111";
const OTHER_CARD: &str = "5500-0055-5555-5559";

#[tokio::test]
async fn the_three_calls_of_the_public_quick_start_work_as_written() {
    let stack = Stack::start().await;
    let call = |path: &str, body: &str| {
        let url = format!("{}{path}", stack.env("OAKALLOW_BACKEND"));
        let key = format!("X-API-Key: {}", stack.env("OAKALLOW_KEY"));
        // Plain `-d`: curl says it is a form.
        let output =
            Command::new("curl").args(["-sS", "--fail-with-body", &url, "-H", &key, "-d", body]).output();
        let output = output.expect("curl");
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let check =
        call("/v1/permissions/check", r#"{"tool_name":"restart_service","resource_id":"server-prod-01"}"#);
    assert_eq!(check["permission"], "allowed", "{check:#}");
    assert!(
        check["resolved_from"].is_string()
            && check["policy_version"].is_u64()
            && check["check_id"].is_string()
    );
    let minted = call("/v1/tokens/mint", r#"{"tool_name":"restart_service"}"#);
    assert_eq!(minted["token"].as_str().unwrap().split('.').count(), 3);
    call("/v1/executions/log", r#"{"tool_name":"restart_service","execution_result":"success"}"#);
}

#[tokio::test]
async fn metrics_have_their_names_and_count() {
    let stack = Stack::start().await;
    let _ = stack.acme().call("read_record", &json!({"id": "42"})).send().await.expect(200);
    let _ = stack.acme().call("drop_database", &json!({"name": "orders"})).send().await.expect(403);
    let held = stack.globex().call("restart_service", &json!({"service": "a"})).header("prefer", "wait=1");
    let _ = held.send().await.expect(202);
    let ops = Agent::new(stack.env("OAKALLOW_OPS"), "");
    assert_eq!(ops.get("/healthz").await.status, 200);
    assert_eq!(ops.get("/readyz").await.status, 200);
    let text = ops.get("/metrics").await.expect(200).text;
    for name in [
        "oakallow_requests_total",
        "oakallow_decision_seconds_bucket",
        "oakallow_hold_seconds_bucket",
        "oakallow_held_calls",
        "oakallow_spool_events",
        "oakallow_policy_age_seconds",
        "oakallow_upstream_outcomes_total",
    ] {
        assert!(oakallow_e2e::proxy::metric(&text, name).is_some(), "no {name} in:\n{text}");
    }
    for line in text.lines().filter(|line| line.starts_with("oakallow_requests_total")) {
        assert!(line.contains("decision=") && line.contains("resolved_from="), "{line}");
    }
    for unbounded in ["acme", "read_record", "server-prod"] {
        assert!(!text.contains(unbounded), "{unbounded} is a label:\n{text}");
    }
    let backend = Agent::new(stack.env("OAKALLOW_BACKEND"), "");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(backend.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn an_orderly_end_answers_held_calls_and_cuts_nothing() {
    let mut stack = Stack::start().await;
    let call = stack.globex().call("restart_service", &json!({"service": "server-prod-01"})).spawn();
    let _ = stack.control().await_pending("restart_service").await;
    let status = stack.terminate(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0));
    let answer = call.await.unwrap().expect(202);
    assert_eq!(answer.text_of("status"), "pending", "told to come back, not cut");
}

#[tokio::test]
async fn no_secret_is_in_any_log_or_file() {
    let mut stack = Stack::start().await;
    let control = stack.control();
    let secrets = json!({"password": SECRET_PASSWORD, "note": SECRET_KEY});
    let _ = stack.acme().call("read_record", &json!({"id": "42"})).send().await.expect(200);
    let _ = stack.acme().call_async("format_disk", &secrets).send().await.expect(202);
    let mut surplus = json!({"service": "server-prod-01"});
    surplus["api_key"] = json!(SECRET_PASSWORD);
    let _ = stack.acme().call("restart_service", &surplus).send().await.expect(422);
    let _ = stack
        .acme()
        .request(reqwest::Method::POST, "/tools/read_record", SECRET_PASSWORD)
        .send()
        .await
        .expect(400);
    let pending =
        stack.globex().call_async("restart_service", &json!({"service": "s"})).send().await.expect(202);
    control.approve(pending.text_of("approval_id")).await;
    let ran = stack.globex().call("restart_service", &json!({"service": "s"})).send().await.expect(200);
    let _ = control.await_event(ran.header("x-oakallow-txn"), "call.completed").await;
    let audit = serde_json::to_string(&control.audit().await).unwrap();
    for secret in [SECRET_PASSWORD, SECRET_KEY] {
        assert!(!audit.contains(secret), "{secret} is in the audit log");
    }
    assert_eq!(stack.terminate(Duration::from_secs(20)).await.code(), Some(0));

    let keys = stack.envs().iter().filter(|(name, _)| name.ends_with("KEY"));
    let mut secrets: Vec<(&str, &str)> = keys.map(|(name, key)| (name.as_str(), key.as_str())).collect();
    assert!(secrets.len() >= 6, "{} keys", secrets.len());
    secrets.extend([("a password", SECRET_PASSWORD), ("a key of somebody else", SECRET_KEY)]);
    let files = files(stack.dir());
    assert!(files.len() > 4, "{files:?}");
    for file in files.iter().filter(|file| !file.ends_with("dev.env")) {
        let content = fs::read(file).unwrap();
        let content = String::from_utf8_lossy(&content);
        for (name, secret) in &secrets {
            assert!(!content.contains(secret), "{name} is in {}", file.display());
        }
    }
}

#[tokio::test]
async fn card_numbers_are_stored_as_comparable_hashes() {
    let mut stack = Stack::start().await;
    let control = stack.control();
    let mut stored = Vec::new();
    for (card, note) in [(CARD, "first"), (CARD, "second"), (OTHER_CARD, "third")] {
        let arguments = json!({"payment": {"number": card}, "note": note});
        let pending = stack.acme().call_async("charge_card", &arguments).send().await.expect(202);
        let life = control.await_event(pending.header("x-oakallow-txn"), "call.requested").await;
        let requested = life.iter().find(|event| event["type"] == "call.requested").unwrap();
        let parameters = &requested["data"]["parameters"];
        assert_eq!(parameters["note"], note, "what is no secret can be read: {requested:#}");
        stored.push(parameters["payment"]["number"].clone());
        let shown = control.approval(pending.text_of("approval_id")).await;
        assert_eq!(shown["parameters"]["payment"]["number"], card, "the approver sees what they approve");
    }
    assert!(stored[0]["redacted"].is_string(), "{stored:?}");
    assert_eq!(stored[0], stored[1], "equal values stay comparable");
    assert_ne!(stored[0], stored[2]);

    assert_eq!(stack.terminate(Duration::from_secs(20)).await.code(), Some(0));
    for file in files(stack.dir()) {
        let content = fs::read(&file).unwrap();
        let content = String::from_utf8_lossy(&content);
        for card in [CARD, OTHER_CARD] {
            assert!(!content.contains(card), "a card number is in {}", file.display());
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if entry.is_file() {
            found.push(entry);
        }
    }
    found
}

#[tokio::test]
async fn the_admin_listener_answers_to_its_own_name_only() {
    let stack = Stack::start().await;
    let admin = Agent::new(stack.env("OAKALLOW_ADMIN"), "");
    let holds = |host: &str| admin.request(reqwest::Method::GET, "/holds", "").header("host", host).send();
    for (host, status) in [
        ("localhost:9901", 200),
        ("127.0.0.1", 200),
        ("[::1]:9901", 200),
        ("evil.example", 421),
        ("localhost.evil:80", 421),
    ] {
        assert_eq!(holds(host).await.status, status, "{host}");
    }
}
