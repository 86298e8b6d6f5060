//! `oakallow policy test`: a policy document against the decisions that its authors expect.

mod judge;
mod suite;

use std::io::Write;
use std::path::{Path, PathBuf};

use self::judge::judge;
use self::suite::Case;
pub(crate) use self::suite::Suite;
use crate::Done;

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
        after_help = "A test file names or holds a policy document, and lists cases; see config/policy-tests.yaml."
    )]
    Test {
        /// Test files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
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
    let suite = Suite::read(path)?;
    let (document, rules) = suite.policy(path)?;
    let judged = |case: Case| {
        let problem = judge(&rules, &case.call.names(&document), &case);
        (case.name, problem)
    };
    Ok(suite.cases.into_iter().map(judged).collect())
}
