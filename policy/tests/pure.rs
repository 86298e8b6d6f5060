//! The crate decides and does nothing else: no I/O, no clock, no randomness, for every target it is built for.

#![allow(clippy::unwrap_used, reason = "test code: a failed expectation is the result")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What must never be among the dependencies, and what it would bring in. A name ending in `*` is a prefix.
const BANNED: &[(&str, &str)] = &[
    ("tokio*", "I/O and timers"),
    ("async-std", "I/O and timers"),
    ("mio", "I/O"),
    ("socket2", "I/O"),
    ("hyper*", "network"),
    ("reqwest*", "network"),
    ("pingora*", "network"),
    ("axum*", "network"),
    ("rustls*", "network"),
    ("sqlx*", "storage"),
    ("libsqlite3-sys", "storage"),
    ("fjall", "storage"),
    ("tempfile", "files"),
    ("rand", "randomness"),
    ("rand_chacha", "randomness"),
    ("getrandom", "randomness"),
    ("fastrand", "randomness"),
    ("uuid", "randomness"),
    ("ahash", "randomness"),
    ("chrono", "a clock"),
    ("iana-time-zone", "a clock"),
    ("web-time", "a clock"),
    ("instant", "a clock"),
    ("quanta", "a clock"),
    ("js-sys", "the host environment"),
    ("wasm-bindgen*", "the host environment"),
];

/// What the standard library offers of the same.
const BANNED_PATHS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::net",
    "std::process",
    "std::thread",
    "std::time",
    "Instant::now",
    "SystemTime",
    "RandomState",
    "now_utc",
    "now_local",
];

#[test]
fn no_dependency_does_io_or_knows_time_or_chance() {
    for target in ["x86_64-unknown-linux-gnu", "wasm32-unknown-unknown"] {
        let found: Vec<String> = dependencies(target)
            .into_iter()
            .filter_map(|name| banned(&name).map(|brings| format!("{name} (it brings {brings})")))
            .collect();
        assert!(found.is_empty(), "for {target}, the policy crate depends on {}", found.join(", "));
    }
}

#[test]
fn no_source_file_does_io_or_reads_a_clock() {
    let mut found = Vec::new();
    for file in sources(&crate_root().join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for path in BANNED_PATHS.iter().filter(|path| code.contains(**path)) {
                found.push(format!("{}:{}: {path}", file.display(), number + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "time, chance and the outside world are parameters here:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_banned_name_is_recognised() {
    assert_eq!(banned("getrandom"), Some("randomness"));
    assert_eq!(banned("tokio-util"), Some("I/O and timers"));
    assert_eq!(banned("rand_core"), None, "traits only: randomness comes in as a parameter");
    assert!(dependencies("x86_64-unknown-linux-gnu").contains(&"serde".to_owned()));
}

fn banned(name: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    BANNED.iter().find(|(pattern, _)| matches(pattern)).map(|(_, brings)| *brings)
}

/// Names of everything that is linked into the crate (not what only builds or tests it).
fn dependencies(target: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "oakallow-policy", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}", "--target", target])
        .current_dir(crate_root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn crate_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
