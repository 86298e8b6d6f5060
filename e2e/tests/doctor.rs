//! `oakallow doctor` beside a running stack: what it finds in order, and what it must not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::BTreeMap;
use std::net::TcpListener;

use oakallow_e2e::clients::Server;
use oakallow_e2e::process::oakallow;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::upstream::Recorder;
use serde_json::Value;

/// What it says of each check, and whether it ended well.
async fn examined(arguments: &[&str], key: &str) -> (bool, BTreeMap<String, Vec<(String, String)>>) {
    let mut command = oakallow();
    command.arg("doctor").arg("--json").args(arguments).env("OAKALLOW_API_KEY", key);
    for variable in ["OAKALLOW_BACKEND", "OAKALLOW_PROXY", "OAKALLOW_OPS"] {
        command.env_remove(variable);
    }
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("oakallow doctor");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        (key.is_empty() || !said.contains(key)) && output.stderr.is_empty(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut findings: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for line in said.lines() {
        let finding: Value = serde_json::from_str(line).expect("JSON");
        let text = |member: &str| finding[member].as_str().expect("a text").to_owned();
        findings.entry(text("check")).or_default().push((text("verdict"), text("detail")));
    }
    (output.status.success(), findings)
}

#[tokio::test]
async fn a_stack_in_order_is_found_in_order() {
    let stack = Stack::start().await;
    let tool = format!("{}/tools/read_record", stack.env("OAKALLOW_TOOLS"));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}/mcp", closed.local_addr().unwrap());
    drop(closed);
    let arguments = [
        "--tool-server",
        &tool,
        "--tool-server",
        &nowhere,
        "--proxy",
        stack.env("OAKALLOW_PROXY"),
        "--ops",
        stack.env("OAKALLOW_OPS"),
        "--backend",
        stack.env("OAKALLOW_BACKEND"),
    ];
    let (well, findings) = examined(&arguments, stack.env("OAKALLOW_ACME_KEY")).await;
    assert!(well, "{findings:#?}");
    let checks: Vec<&str> = findings.keys().map(String::as_str).collect();
    assert_eq!(checks, ["audit", "backend", "bypass", "clock", "key", "policy", "proxy", "ready", "spool"]);
    let bypass: Vec<&str> = findings["bypass"].iter().map(|(_, detail)| detail.as_str()).collect();
    assert!(bypass[0].contains("refuses requests without a token (403)"), "{bypass:?}");
    assert!(bypass[1].contains("cannot be reached from here"), "{bypass:?}");

    let (well, findings) = examined(&arguments, "oak_live_00000000000000000000000000000000").await;
    assert!(!well && findings["key"][0].0 == "fail", "{findings:#?}");
}

#[tokio::test]
async fn a_way_around_the_proxy_is_found() {
    let (upstream, everything) = tokio::join!(Recorder::start(), Server::everything());
    let mcp = format!("{}/mcp", everything.url);
    for url in [upstream.url.as_str(), &mcp] {
        let (well, findings) = examined(&["--tool-server", url], "").await;
        let (verdict, detail) = &findings["bypass"][0];
        assert!(!well && verdict == "fail" && detail.contains("around the proxy"), "{url}: {detail}");
    }
}

#[tokio::test]
async fn what_does_not_answer_is_found() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let (well, findings) =
        examined(&["--proxy", &nowhere, "--ops", &nowhere, "--backend", &nowhere], "oak_live_x").await;
    assert!(!well, "{findings:#?}");
    for check in ["proxy", "ready", "backend"] {
        assert_eq!(findings[check][0].0, "fail", "{check}");
    }
}
