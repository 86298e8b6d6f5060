//! `oakallow policy test`: the example, the golden cases of the policy crate, and what fails.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A document that tests hold themselves.
const POLICY: &str = "policy: |\n  org: demo\n  tenants: [acme]\n  tools:\n    - {name: read, approved: true}\n    \
                      - {name: drop, resource: required}\n";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn config(name: &str) -> String {
    repository("config").join(name).display().to_string()
}

fn oakallow(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oakallow")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn written(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("written.yaml");
    fs::write(&file, text).unwrap();
    (dir, file.display().to_string())
}

/// Runs one case on [`POLICY`]; the exit code, and all that was said.
fn case(case: &str) -> (Option<i32>, String) {
    let (_dir, file) = written(&format!("{POLICY}cases:\n  - {case}\n"));
    let tested = oakallow(&["policy", "test", &file]);
    (tested.status.code(), stdout(&tested) + &String::from_utf8_lossy(&tested.stderr))
}

#[test]
fn the_examples_tests_pass() {
    let tested = oakallow(&["policy", "test", &config("policy-tests.yaml")]);
    assert!(tested.status.success(), "{}", stdout(&tested));
    assert!(stdout(&tested).contains(" passed, 0 failed"), "{}", stdout(&tested));
}

#[test]
fn a_policy_that_decides_otherwise_fails_its_tests() {
    let policy = config("policy.yaml");
    let (_dir, file) = written(&format!(
        "policy: {policy}\ncases:\n  - name: wrong\n    call: {{tenant: acme, tool: restart_service}}\n    \
         expect: {{permission: disabled}}\n"
    ));
    let tested = oakallow(&["policy", "test", &file]);
    assert_eq!(tested.status.code(), Some(1));
    let said = stdout(&tested);
    assert!(said.contains("wrong") && said.contains("decided allowed from tenant_tool"), "{said}");
}

#[test]
fn every_golden_decision_of_the_policy_crate_passes_here_too() {
    let folder = repository("policy/tests/cases");
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let cases: usize =
        files.iter().map(|file| fs::read_to_string(file).unwrap().matches("call: ").count()).sum();
    assert!(files.len() >= 20 && cases >= 200, "{} files, {cases} cases", files.len());
    let tested =
        Command::new(env!("CARGO_BIN_EXE_oakallow")).args(["policy", "test"]).args(&files).output().unwrap();
    let said = stdout(&tested) + &String::from_utf8_lossy(&tested.stderr);
    assert_eq!(said, format!("{cases} passed, 0 failed\n"));
    let checked = Command::new(env!("CARGO_BIN_EXE_oakallow")).arg("check").args(&files).output().unwrap();
    assert!(checked.status.success(), "{}", stdout(&checked));
}

#[test]
fn what_is_left_out_may_be_anything() {
    for right in [
        "{name: c, call: {tool: read}, expect: {permission: allowed}}",
        "{name: c, call: {tool: read}, expect: {permission: allowed, rule: none, unregistered: false}}",
        "{name: c, call: {tool: x}, expect: {permission: requires_approval, unregistered: true}}",
        "{name: c, call: {tool: drop}, expect: {error: resource_required}}",
    ] {
        assert_eq!(case(right), (Some(0), "1 passed, 0 failed\n".to_owned()), "{right}");
    }
}

#[test]
fn each_expectation_can_fail_and_says_what_was_decided() {
    for (wrong, said) in [
        (
            "{name: c, call: {tool: drop}, expect: {permission: disabled}}",
            "expected disabled, there is no decision: the tool requires a resource (resource_required)",
        ),
        (
            "{name: c, call: {tool: drop}, expect: {error: closed}}",
            "expected no decision (closed), there is no decision: the tool requires a resource",
        ),
        (
            "{name: c, call: {tool: read}, expect: {error: unknown_tenant}}",
            "expected no decision (unknown_tenant), decided allowed from tool_approved (rule none)",
        ),
        (
            "{name: c, call: {tool: read}, expect: {permission: allowed, rule: r}}",
            "expected allowed (rule r), decided allowed from tool_approved (rule none)",
        ),
        (
            "{name: c, call: {tool: read}, expect: {permission: allowed, resolved_from: org_tool}}",
            "expected allowed from org_tool, decided allowed from tool_approved",
        ),
        (
            "{name: c, call: {tool: read}, expect: {permission: allowed, unregistered: true}}",
            "expected allowed for an unregistered tool, decided allowed from tool_approved (rule none) for a registered",
        ),
        (
            "{name: c, call: {tool: read}, expect: {permission: allowed}, trace: [kill_switch matched disabled]}",
            "- kill_switch matched disabled\n  + kill_switch no_match\n  + tool_disabled no_match",
        ),
    ] {
        let (code, found) = case(wrong);
        assert!(
            code == Some(1) && found.contains(said) && found.contains("0 passed, 1 failed"),
            "{wrong}: {found}"
        );
    }
}

#[test]
fn an_expectation_that_means_nothing_is_refused() {
    for (meaningless, said) in [
        (
            "{name: c, call: {tool: read}, expect: {}}",
            "the case `c` must expect a `permission` or an `error`",
        ),
        (
            "{name: c, call: {tool: read}, expect: {permission: allowed, error: closed}}",
            "the case `c` expects both",
        ),
        (
            "{name: c, call: {tool: read}, expect: {error: closed, rule: r}}",
            "the case `c` expects an `error`, and with it",
        ),
        (
            "{name: c, call: {tool: read}, expect: {permission: allowed, unregistered: }}",
            "expected a boolean",
        ),
        (
            "{name: c, call: {tool: read}, expect: {permission: allowed, resolved_from: org_tol}}",
            "`org_tol` is no gate or level",
        ),
    ] {
        let (code, found) = case(meaningless);
        assert!(code == Some(1) && found.contains(said), "{meaningless}: {found}");
    }
}

#[test]
fn a_fault_of_the_policy_within_is_told_with_its_place() {
    let text = "policy: |\n  org: demo\n  tols: []\ncases: []\n";
    let (_dir, file) = written(text);
    for command in [&["policy", "test"][..], &["check"]] {
        let output = oakallow(&[command, &[&file]].concat());
        let said = stdout(&output) + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("{file}, its policy:2:1: unknown field `tols`")), "{said}");
    }
    let (_dir, file) = written("policy: |\n  org: demo\n  tenants: []\nunloaded: [acme]\ncases: []\n");
    let output = oakallow(&["policy", "test", &file]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("`unloaded` names `acme`"));
}
