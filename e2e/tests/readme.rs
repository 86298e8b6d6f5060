//! The README's promises: each of its commands is run as it is written, in order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use oakallow_e2e::process::repository;
use oakallow_e2e::readme::blocks;
use oakallow_e2e::stack::Stack;

/// The two that start everything: this test is run by the one, and runs the binary of the other.
const FIRST_SCREEN: [&str; 2] = ["scripts/setup && cargo run --release -- dev\n", "./check\n"];
/// What may not stand in any answer: the command was not understood, or not let in.
const NEVER: [&str; 6] =
    ["unauthenticated", "unknown_route", "not_found", "invalid_request", "\"status\":500", "\"status\":503"];

/// Runs a block as a shell would, with the addresses and keys of the demo.
fn run(stack: &Stack, text: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", text]).envs(stack.envs()).current_dir(stack.dir());
    command
}

async fn output_of(mut command: Command, text: &str) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What a block must show, by what it says of itself.
fn shows(text: &str) -> &'static [&'static str] {
    match text {
        _ if text.contains("tee ") => &["\"pending\"", "\"approved\"", "\"restarted\""],
        _ if text.contains("PROXY/tools/restart_service") => &["\"restarted\"", "token_claims"],
        _ if text.contains("drop_database") => &["\"disabled\""],
        _ if text.contains("/executions\"") => &["\"restart_service\"", "\"type\":\""],
        _ if text.contains("TOOLS/tools/") => &["token_missing"],
        _ if text.contains("permissions/check") => &["\"allowed\"", "\"token\"", "tenant_tool"],
        _ => panic!("the README has a block that this test does not know:\n{text}"),
    }
}

#[tokio::test]
async fn every_command_of_the_readme_does_what_it_says() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let stack = Stack::start().await;
    let mut ran = 0;
    for block in blocks(&readme) {
        let text = block.text.as_str();
        if FIRST_SCREEN.contains(&text) || text.contains("──▶") {
            continue;
        }
        ran += 1;
        let said = if block.language == "sh" {
            output_of(run(&stack, text), text).await
        } else {
            // It waits for somebody.
            let control = stack.control();
            let approve = async {
                let id = control.await_pending("restart_service").await;
                control.approve(&id).await;
            };
            tokio::join!(output_of(run(&stack, text), text), approve).0
        };
        for part in shows(text) {
            assert!(said.contains(part), "no {part} in what this said:\n{text}\n{said}");
        }
        for part in NEVER {
            assert!(!said.contains(part), "{part} in what this said:\n{text}\n{said}");
        }
    }
    assert!(ran >= 7, "only {ran} blocks were found");
}

#[test]
fn the_first_screen_names_the_two_commands_and_they_exist() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let first: String = readme.lines().take(40).map(|line| format!("{line}\n")).collect();
    for command in FIRST_SCREEN {
        assert!(first.contains(&format!("```\n{command}```")), "{command}");
    }
    for script in ["scripts/setup", "check"] {
        let mode = std::fs::metadata(repository().join(script)).expect(script).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} can be run");
    }
}
