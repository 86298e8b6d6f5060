//! What a stranger meets first keeps its word: container files, licence, scripts, links, and no trace of the
//! machine on which something was written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is the result"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use oakallow_e2e::process::{oakallow, repository};
use serde_yaml::Value;

#[test]
fn compose_runs_commands_that_exist() {
    for (name, service) in services() {
        let command = words(&service["command"]);
        let subcommand = command.first().unwrap_or_else(|| panic!("{name} has no command"));
        let help = help_of(subcommand);
        for flag in command.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag.as_str()), "{name}: `oakallow {subcommand}` has no {flag}");
        }
    }
}

#[test]
fn compose_sets_variables_that_somebody_reads() {
    let proxy_config = text("deploy/proxy.yaml");
    for (name, service) in services() {
        let help = help_of(&words(&service["command"])[0]);
        let variables = service["environment"].as_mapping().unwrap();
        for variable in variables.keys().map(|key| key.as_str().unwrap()) {
            let read = help.contains(variable) || proxy_config.contains(variable);
            assert!(read, "{name}: nobody reads {variable}");
        }
    }
}

#[test]
fn compose_mounts_files_and_volumes_that_exist() {
    let file = compose();
    let declared = file["volumes"].as_mapping().unwrap();
    for (name, service) in services() {
        assert!(exists(service["build"]["dockerfile"].as_str().unwrap()), "{name}: no such Dockerfile");
        for mount in words_or_none(&service["volumes"]) {
            let source = mount.split(':').next().unwrap();
            let known = if source.starts_with('.') { exists(source) } else { declared.contains_key(source) };
            assert!(known, "{name}: {source} is neither a file nor a declared volume");
        }
    }
}

#[test]
fn compose_publishes_the_proxy_and_never_the_tools() {
    let services: std::collections::BTreeMap<_, _> = services().into_iter().collect();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["backend", "proxy", "tools"]);
    assert!(services["tools"]["ports"].is_null(), "the proxy must be the only way to the tools");
    for name in ["backend", "proxy"] {
        for port in words(&services[name]["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
    }
}

#[test]
fn the_proxy_of_compose_starts_from_a_valid_configuration() {
    let output = oakallow().arg("check").arg(repository().join("deploy/proxy.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_dockerfile_builds_what_the_workspace_has_and_copies_what_is_there() {
    let dockerfile = text("deploy/Dockerfile");
    let instructions: Vec<&str> =
        dockerfile.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())).collect();
    let stages: Vec<&str> = instructions.iter().filter_map(|i| i.strip_prefix("FROM ")).collect();
    assert_eq!(stages.len(), 2, "a builder and a small image: {stages:?}");
    assert!(text("Cargo.toml").contains("[profile.dist]"));
    assert!(instructions.iter().any(|i| i.contains("cargo build --locked --profile dist")));
    for copy in instructions.iter().filter(|i| i.starts_with("COPY ") && !i.contains("--from=")) {
        let source = copy.split_whitespace().nth(1).unwrap();
        assert!(exists(source), "{copy}");
        assert!(source == "." || sent_to_the_build(source), "{source} is kept out by .dockerignore");
    }
    let user = instructions.iter().rfind(|i| i.starts_with("USER ")).expect("a USER");
    assert!(!user.contains("root") && *user != "USER 0", "{user}");
}

#[test]
fn the_image_is_built_from_every_member_of_the_workspace() {
    // Also: what the sources include at compile time, and what Cargo is configured with.
    let besides =
        ["config", ".cargo", "scripts/cmake", "Cargo.lock", "rust-toolchain.toml"].map(str::to_owned);
    for needed in members().into_iter().chain(besides) {
        assert!(exists(&needed), "{needed} is gone");
        assert!(sent_to_the_build(&needed), "{needed} is kept out by .dockerignore");
    }
}

#[test]
fn the_licence_is_apache_2_and_every_crate_says_so() {
    let licence = text("LICENSE");
    assert!(licence.contains("Apache License") && licence.contains("END OF TERMS AND CONDITIONS"));
    assert!(text("Cargo.toml").contains("license = \"Apache-2.0\""));
    for member in members() {
        let stated = text(&format!("{member}/Cargo.toml")).contains("license.workspace = true");
        assert!(stated, "{member} names no licence");
    }
}

#[test]
fn no_file_names_the_machine_it_was_written_on_or_a_registry_host() {
    // In two parts, so that this file does not name them either.
    let unwanted: Vec<String> = [
        ("/wor", "k/"),
        ("/roo", "t/"),
        ("/hom", "e/"),
        ("../sha", "red/"),
        ("/Use", "rs/"),
        ("index.crates", ".io"),
        ("static.crates", ".io"),
        ("registry.npm", "js.org"),
        ("registry.yarn", "pkg.com"),
        ("files.python", "hosted.org"),
        ("pypi", ".org"),
        ("deb.deb", "ian.org"),
        ("artifac", "tory"),
    ]
    .map(|(start, end)| format!("{start}{end}"))
    .into();
    let mut found = Vec::new();
    for file in files() {
        // A picture or another file without lines is none of this test's business.
        let Ok(text) = fs::read_to_string(repository().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in unwanted.iter().filter(|word| line.contains(word.as_str())) {
                found.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for file in files().iter().filter(|file| file.ends_with(".md")) {
        let folder = repository().join(file).parent().unwrap().to_owned();
        for target in links(&text(file)) {
            if !folder.join(&target).exists() {
                broken.push(format!("{file}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn scripts_can_be_run_and_stop_at_the_first_error() {
    let script = |file: &&String| {
        let named =
            *file == "check" || *file == ".ci/run" || file.starts_with("scripts/") || file.ends_with(".sh");
        named && *file != "scripts/needs.sh"
    };
    for file in files().iter().filter(script) {
        let mode = fs::metadata(repository().join(file)).unwrap().permissions().mode();
        assert!(mode & 0o111 != 0, "{file} is not executable");
        let text = text(file);
        match text.lines().next() {
            Some("#!/usr/bin/env bash") => {
                assert!(text.contains("\nset -euo pipefail\n"), "{file} does not stop at the first error");
            }
            Some("#!/bin/sh") => {}
            other => panic!("{file} starts with {other:?}"),
        }
    }
}

#[test]
fn ci_runs_what_a_developer_runs() {
    assert!(text(".ci/run").contains("exec ./check\n"));
}

/// The folders of the workspace's crates.
fn members() -> Vec<String> {
    let manifest = text("Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("members = ")).unwrap();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn compose() -> Value {
    let mut file: Value = serde_yaml::from_str(&text("docker-compose.yml")).unwrap();
    file.apply_merge().unwrap();
    file
}

fn services() -> Vec<(String, Value)> {
    let file = compose();
    let services = file["services"].as_mapping().unwrap();
    services.iter().map(|(name, service)| (name.as_str().unwrap().to_owned(), service.clone())).collect()
}

fn words(list: &Value) -> Vec<String> {
    let list = list.as_sequence().unwrap_or_else(|| panic!("not a list: {list:?}"));
    list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn words_or_none(list: &Value) -> Vec<String> {
    if list.is_null() { Vec::new() } else { words(list) }
}

fn help_of(subcommand: &str) -> String {
    let output = oakallow().args([subcommand, "--help"]).output().unwrap();
    assert!(output.status.success(), "there is no `oakallow {subcommand}`");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether .dockerignore, which starts by leaving everything out, lets it in again.
fn sent_to_the_build(path: &str) -> bool {
    text(".dockerignore").lines().any(|line| line.strip_prefix('!') == Some(path))
}

/// Everything that is committed, or would be.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    // A file that was deleted but is still in the index has nothing to say.
    listed.split_terminator('\0').filter(|file| exists(file)).map(str::to_owned).collect()
}

/// Targets of links to other files, without their fragments.
fn links(markdown: &str) -> Vec<String> {
    let starts = markdown.split("](").skip(1);
    let targets = starts.filter_map(|rest| rest.split([')', ' ', '\n']).next());
    let files = targets.filter(|target| !target.contains(':') && !target.starts_with('#'));
    files.map(|target| target.split('#').next().unwrap_or_default().to_owned()).collect()
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn exists(path: impl AsRef<Path>) -> bool {
    repository().join(path).exists()
}
