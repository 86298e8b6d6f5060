//! The local operations on a backend's data directory.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::{Command, Output};

fn oakallow(data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oakallow"));
    command.args(arguments).arg("--data-dir").arg(data_dir).output().unwrap()
}

const PERSON: [&str; 4] = ["--org", "acme-corp", "--email", "you@example.com"];

fn backend(data_dir: &Path, operation: &str) -> String {
    let output = oakallow(data_dir, &[&["backend", operation][..], &PERSON].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_first_key_and_link_come_from_the_machine_itself() {
    let data = tempfile::tempdir().unwrap();
    let first = backend(data.path(), "bootstrap");
    assert!(first.starts_with("oak_live_") && first.len() == 41, "not a management key");
    assert_ne!(backend(data.path(), "bootstrap"), first, "no key is shown twice");
    assert!(backend(data.path(), "login-link").starts_with("http://localhost:4000/"));
}

#[test]
fn a_link_for_somebody_unknown_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    backend(data.path(), "bootstrap");
    let output =
        oakallow(data.path(), &["backend", "login-link", "--org", "acme-corp", "--email", "x@example.com"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("x@example.com"));
}

#[test]
fn the_record_of_what_was_done_is_sound() {
    let data = tempfile::tempdir().unwrap();
    backend(data.path(), "bootstrap");
    let output = oakallow(data.path(), &["audit", "verify", "--org", "acme-corp"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && said.contains("sound: ") && said.contains("chain      backend"),
        "{said}"
    );
}

#[test]
fn a_directory_without_a_record_is_an_error_not_a_sound_record() {
    let data = tempfile::tempdir().unwrap();
    let output = oakallow(data.path(), &["audit", "verify", "--org", "acme-corp"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}
