//! `oakallow policy test`: a policy document against the decisions that its authors expect.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use oakallow_policy::call::CallNames;
use oakallow_policy::document::{DocumentError, from_yaml};
use oakallow_policy::{Permission, RuleSet};
use serde::Deserialize;

use crate::Done;
use crate::policy_file::{self, WrittenCall};

/// `oakallow policy`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Compare a policy document's decisions with the expected ones
    #[command(
        after_help = "A test file names a policy document and lists cases; see config/policy-tests.yaml."
    )]
    Test {
        /// Test files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// A test file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    /// The policy document, relative to the test file.
    policy: PathBuf,
    cases: Vec<Case>,
}

impl Suite {
    /// Reads a test file; `file` is only for errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        from_yaml(file, text)
    }

    /// How many cases it has.
    pub(crate) fn len(&self) -> usize {
        self.cases.len()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    call: WrittenCall,
    expect: Expected,
}

/// What must come out. Left out: anything will do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    permission: Permission,
    #[serde(default)]
    resolved_from: Option<String>,
    #[serde(default)]
    rule: Option<String>,
}

/// Runs every case of every file.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let Command::Test { files } = &args.command;
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        for (name, problem) in test(file)? {
            match problem {
                None => passed += 1,
                Some(problem) => {
                    failed += 1;
                    writeln!(out, "FAILED {}: {name}\n  {problem}", file.display())?;
                }
            }
        }
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 { Done::Ok } else { Done::Findings })
}

/// Each case's name, and what is wrong with it.
fn test(path: &Path) -> anyhow::Result<Vec<(String, Option<String>)>> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
    let suite = Suite::parse(&file, &text)?;
    let document = policy_file::read(&path.parent().unwrap_or(Path::new("")).join(&suite.policy))
        .with_context(|| format!("{file} names a policy that cannot be used"))?;
    let rules = document.compile(0)?;
    let judge = |case: Case| {
        let problem = judge(&rules, &case.call.names(&document), &case.expect);
        (case.name, problem)
    };
    Ok(suite.cases.into_iter().map(judge).collect())
}

fn judge(rules: &RuleSet, call: &CallNames, expected: &Expected) -> Option<String> {
    let decision = match rules.resolve(&call.as_call()) {
        Ok(decision) => decision,
        Err(e) => return Some(format!("there is no decision: {e}")),
    };
    let from = decision.resolved_from().as_str();
    let rule = decision.rule().unwrap_or("none");
    let right = decision.permission() == expected.permission
        && expected.resolved_from.as_deref().is_none_or(|expected| expected == from)
        && expected.rule.as_deref().is_none_or(|expected| expected == rule);
    (!right).then(|| {
        format!(
            "expected {}, decided {} from {from} (rule {rule})",
            wanted(expected),
            decision.permission().as_str()
        )
    })
}

fn wanted(expected: &Expected) -> String {
    let mut text = expected.permission.as_str().to_owned();
    if let Some(from) = &expected.resolved_from {
        text.push_str(&format!(" from {from}"));
    }
    if let Some(rule) = &expected.rule {
        text.push_str(&format!(" (rule {rule})"));
    }
    text
}
