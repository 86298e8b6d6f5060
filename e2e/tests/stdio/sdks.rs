//! The official SDKs, which start the proxy as desktop programs do, and the MCP project's filesystem server.

use std::fs;

use oakallow_e2e::clients::Script;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::{Wrapping, everything_server, filesystem_server};
use oakallow_e2e::wait::until;
use serde_json::{Value, json};

use crate::govern;

/// One call allowed, one disabled, one approved by a person, one given up by the agent: all at one time. The
/// server learns where it may read by asking the client.
async fn the_files_with(script: &str) {
    let stack = Stack::start().await;
    let control = stack.control();
    let tools = [
        ("list_allowed_directories", "allowed"),
        ("read_text_file", "allowed"),
        ("write_file", "disabled"),
        ("create_directory", "requires_approval"),
        ("move_file", "requires_approval"),
    ];
    govern(&stack, &tools).await;
    let wrapping = Wrapping::new(&stack, "files", json!({"resources": {"read_text_file": "/path"}})).await;
    let (root, elsewhere) = (wrapping.dir().join("root"), wrapping.dir().join("elsewhere"));
    for dir in [&root, &elsewhere] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(root.join("note.txt"), "hello from the file").unwrap();
    let path = |name: &str| root.join(name).display().to_string();
    let calls = json!([
        {"step": "allowed", "name": "read_text_file", "arguments": {"path": path("note.txt")}},
        {"step": "disabled", "name": "write_file", "arguments": {"path": path("written"), "content": "x"}},
        {"step": "approved", "name": "create_directory", "arguments": {"path": path("made")}},
        {"step": "cancelled", "name": "move_file", "cancelled": true,
         "arguments": {"source": path("note.txt"), "destination": path("moved.txt")}},
    ]);
    let command = json!(wrapping.command(&filesystem_server(&elsewhere))).to_string();
    let (calls, place) = (calls.to_string(), root.display().to_string());
    let variables = [
        ("COMMAND", command.as_str()),
        ("KEY", stack.env("OAKALLOW_ACME_KEY")),
        ("ROOT", place.as_str()),
        ("CALLS", calls.as_str()),
    ];
    let mut script = Script::start(script, &variables);

    let made = control.await_pending("create_directory").await;
    let moved = control.await_pending("move_file").await;
    let _ = script.step("allowed").await;
    let _ = script.step("disabled").await;
    let _ = script.step("cancelled").await;
    until("the end of the cancelled hold", async || refused(&control.audit().await, "move_file")).await;
    // The hold has ended, not the approval: nobody picks it up.
    control.approve(&moved).await;
    assert!(!root.join("made").exists(), "held means held");
    control.approve(&made).await;
    let steps = script.end().await;

    let names = steps["tools"]["names"].as_array().unwrap();
    assert!(names.contains(&json!("read_text_file")) && !names.contains(&json!("write_file")), "{names:?}");
    assert_eq!(steps["allowed"]["text"], "hello from the file", "{:#}", steps["allowed"]);
    let disabled = &steps["disabled"];
    assert_eq!(disabled["isError"], true, "{disabled:#}");
    assert!(disabled["text"].as_str().unwrap().contains("does not allow"), "{disabled:#}");
    assert_eq!(disabled["meta"]["oakallow/decision"]["reason"], "disabled", "{disabled:#}");
    assert!(!root.join("written").exists());
    assert_eq!(steps["approved"]["isError"], false, "{:#}", steps["approved"]);
    assert!(root.join("made").is_dir());
    assert!(steps["cancelled"]["thrown"].is_string(), "{:#}", steps["cancelled"]);
    assert!(root.join("note.txt").exists() && !root.join("moved.txt").exists());
    assert_eq!(steps["cancelled-progress"]["message"], "waiting for approval");
}

fn refused(audit: &[Value], tool: &str) -> Option<()> {
    let is = |event: &Value| event["type"] == "call.refused" && event["data"]["tool"] == tool;
    audit.iter().any(is).then_some(())
}

#[tokio::test]
async fn the_first_typescript_sdk() {
    the_files_with("stdio_v1.mjs").await;
}

#[tokio::test]
async fn the_second_typescript_sdk() {
    the_files_with("stdio_v2.mjs").await;
}

#[tokio::test]
async fn the_python_sdk() {
    the_files_with("stdio_client.py").await;
}

#[tokio::test]
async fn the_reference_server_asks_its_client() {
    let stack = Stack::start().await;
    let tools = [
        ("trigger-sampling-request", "allowed"),
        ("trigger-elicitation-request", "allowed"),
        ("mcp:resources/read", "allowed"),
        ("mcp:prompts/get", "disabled"),
    ];
    govern(&stack, &tools).await;
    let wrapping = Wrapping::new(&stack, "asked", json!({})).await;
    let command = json!(wrapping.command(&everything_server())).to_string();
    let variables = [("COMMAND", command.as_str()), ("KEY", stack.env("OAKALLOW_ACME_KEY"))];
    let steps = Script::start("stdio_asked.mjs", &variables).end().await;
    assert!(steps["sampled"]["text"].as_str().unwrap().contains("what is it"), "{:#}", steps["sampled"]);
    assert!(
        steps["sampling"]["text"].as_str().unwrap().contains("sampled by the client"),
        "{:#}",
        steps["sampling"]
    );
    assert!(steps["elicited"]["message"].is_string());
    assert_eq!(steps["elicitation"]["isError"], false, "{:#}", steps["elicitation"]);
    assert_eq!(steps["resource"]["uri"], "demo://resource/dynamic/text/1");
    assert!(
        steps["refused"]["message"].as_str().unwrap().contains("does not allow"),
        "{:#}",
        steps["refused"]
    );
}
