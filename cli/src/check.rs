//! `oakallow check`: whether files would be accepted, with the place of what is wrong.
//!
//! Each file is read by the very code that will use it, so what passes here is accepted there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use oakallow_policy::document::Document;
use oakallow_proxy::config::Config;

use crate::Done;
use crate::kind::{Kind, well_formed};
use crate::policy_dir;
use crate::policy_test::Suite;

/// `oakallow check`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files to check, and directories of policies
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// What the files are [default: told from each file's content]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
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
    if path.is_dir() {
        return policy_dir::read(path).map(|document| told(&document)).map_err(|e| format!("{e:#}"));
    }
    let text = fs::read_to_string(path).map_err(|e| format!("{file}: cannot be read: {e}"))?;
    well_formed(&file, &text).map_err(|e| e.to_string())?;
    match kind.or_else(|| Kind::of(&text)) {
        Some(Kind::Proxy) => proxy(&file, &text),
        Some(Kind::Policy) => policy(&file, &text),
        Some(Kind::PolicyTests) => policy_tests(&file, &text),
        None => Err(format!(
            "{file}: neither a proxy configuration (top-level `routes:`) nor a policy document (`org:`) nor policy \
             tests (`cases:`)\n  hint: say what it is with --kind"
        )),
    }
}

fn policy(file: &str, text: &str) -> Result<String, String> {
    Kind::Policy.read(file, text, Document::parse).map(|document| told(&document)).map_err(|e| e.to_string())
}

fn told(document: &Document) -> String {
    let rules = document.policy.rules.len() + document.tenant_rules.values().map(Vec::len).sum::<usize>();
    format!(
        "a policy document of org `{}`: {} tools, {} tenants, {rules} rules",
        document.policy.org,
        document.policy.tools.len(),
        document.policy.tenants.len(),
    )
}

fn policy_tests(file: &str, text: &str) -> Result<String, String> {
    let suite = Kind::PolicyTests.read(file, text, Suite::parse).map_err(|e| e.to_string())?;
    suite.policy(Path::new(file), None).map_err(|e| format!("{e:#}"))?;
    Ok(format!("{} policy tests", suite.len()))
}

fn proxy(file: &str, text: &str) -> Result<String, String> {
    let config = Kind::Proxy.read(file, text, Config::parse).map_err(|e| e.to_string())?;
    config.check_files().map_err(|problem| format!("{file}: {problem}"))?;
    let routes: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    let cautions: String =
        config.cautions().iter().map(|caution| format!("\n  warning: {caution}")).collect();
    Ok(format!("a proxy configuration with the routes {}{cautions}", routes.join(", ")))
}
