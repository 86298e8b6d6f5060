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
fn a_directory_without_a_database_is_an_error_and_stays_without() {
    let data = tempfile::tempdir().unwrap();
    let link: &[&str] = &["backend", "login-link", "--org", "acme-corp", "--email", "you@example.com"];
    for arguments in [&["audit", "verify", "--org", "acme-corp"], link] {
        let output = oakallow(data.path(), arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said, format!("error: no oakallow database in {}\n", data.path().display()));
    }
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
}

#[test]
fn an_unusable_directory_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for arguments in
        [&["backend", "--listen", "127.0.0.1:0"][..], &[&["backend", "bootstrap"][..], &PERSON].concat()]
    {
        let output = oakallow(file.path(), arguments);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("the data directory {}: ", file.path().display())), "{said}");
    }
}

#[test]
fn a_public_url_that_nobody_could_reach_is_refused() {
    let data = tempfile::tempdir().unwrap();
    backend(data.path(), "bootstrap");
    for (url, good) in [
        ("https://oakallow.example.com/", true),
        ("oakallow.example.com", false),
        ("ftp://oakallow.example.com", false),
        ("https://oakallow.example.com/approvals", false),
        ("https://me:secret@oakallow.example.com", false),
    ] {
        let output = oakallow(
            data.path(),
            &[&["backend", "login-link"], &PERSON[..], &["--public-url", url]].concat(),
        );
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), good, "{url}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!good || said.starts_with("https://oakallow.example.com/login?token="), "{url}: {said}");
    }
}
