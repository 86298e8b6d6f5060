//! `oakallow check`: whether files would be accepted, with the place of what is wrong.
//!
//! Each file is read by the very code that will use it, so what passes here is accepted there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use oakallow_policy::document::Document;
use oakallow_proxy::config::Config;
use serde_yaml::Value;

use crate::Done;
use crate::policy_test::Suite;

/// `oakallow check`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files to check
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files are [default: told from each file's content]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

/// What a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A proxy's configuration
    Proxy,
    /// A policy document
    Policy,
    /// A file of policy tests
    PolicyTests,
}

/// Checks every file, and reports on all of them.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let mut done = Done::Ok;
    for path in &args.files {
        match check(path, args.kind) {
            Ok(summary) => writeln!(out, "{}: ok, {summary}", path.display())?,
            Err(problem) => {
                done = Done::Findings;
                writeln!(out, "{problem}")?;
            }
        }
    }
    Ok(done)
}

/// One file: what it is, or what is wrong with it and where.
fn check(path: &Path, kind: Option<Kind>) -> Result<String, String> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|e| format!("{file}: cannot be read: {e}"))?;
    match kind.or_else(|| recognise(&text)) {
        Some(Kind::Proxy) => proxy(&file, &text),
        Some(Kind::Policy) => policy(&file, &text),
        Some(Kind::PolicyTests) => policy_tests(&file, &text),
        None => Err(format!(
            "{file}: neither a proxy configuration (top-level `routes:`) nor a policy document (`org:`) nor policy \
             tests (`cases:`)\n  hint: say what it is with --kind"
        )),
    }
}

/// Told by the one key that each kind must have. A file that is not YAML is taken for a policy
/// document, whose error then names the place.
fn recognise(text: &str) -> Option<Kind> {
    match serde_yaml::from_str::<Value>(text) {
        Ok(value) if value.get("routes").is_some() => Some(Kind::Proxy),
        Ok(value) if value.get("org").is_some() => Some(Kind::Policy),
        Ok(value) if value.get("cases").is_some() => Some(Kind::PolicyTests),
        Ok(_) => None,
        Err(_) => Some(Kind::Policy),
    }
}

fn policy(file: &str, text: &str) -> Result<String, String> {
    let document = Document::parse(file, text).map_err(|e| e.to_string())?;
    let rules = document.policy.rules.len() + document.tenant_rules.values().map(Vec::len).sum::<usize>();
    Ok(format!(
        "a policy document of org `{}`: {} tools, {} tenants, {rules} rules",
        document.policy.org,
        document.policy.tools.len(),
        document.policy.tenants.len(),
    ))
}

fn policy_tests(file: &str, text: &str) -> Result<String, String> {
    let suite = Suite::parse(file, text).map_err(|e| e.to_string())?;
    Ok(format!("{} policy tests", suite.len()))
}

fn proxy(file: &str, text: &str) -> Result<String, String> {
    let config = Config::parse(file, text).map_err(|e| e.to_string())?;
    let routes: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    Ok(format!("a proxy configuration with the routes {}", routes.join(", ")))
}
