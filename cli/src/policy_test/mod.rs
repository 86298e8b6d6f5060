//! `oakallow policy test`: a policy against the decisions that its authors expect.

mod judge;
mod suite;

use std::io::Write;
use std::path::{Path, PathBuf};

use self::judge::judge;
use self::suite::Case;
pub(crate) use self::suite::Suite;
use crate::Done;

/// `oakallow policy test`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Test files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The policy, in the place of those that the files name
    #[arg(long, value_name = "FILE|DIR")]
    policy: Option<PathBuf>,
}

/// Runs every case of every file.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let (mut passed, mut failed) = (0, 0);
    for file in &args.files {
        for (name, problem) in test(file, args.policy.as_deref())? {
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
fn test(path: &Path, instead: Option<&Path>) -> anyhow::Result<Vec<(String, Option<String>)>> {
    let suite = Suite::read(path)?;
    let (document, rules) = suite.policy(path, instead)?;
    let judged = |case: Case| {
        let problem = judge(&rules, &case.call.names(&document), &case);
        (case.name, problem)
    };
    Ok(suite.cases.into_iter().map(judged).collect())
}
