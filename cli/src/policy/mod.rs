//! `oakallow policy`: policies as files, tested, compared with a backend's, and brought there.

mod files;
mod plan;
mod state;
#[cfg(test)]
mod tests;

use std::io::Write;

use crate::Done;
use crate::policy_test;

/// `oakallow policy`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXIT: &str = "\
Exit status: 0 the same, or done; 1 failed; 2 there are differences, or changes that were not made.";

#[derive(clap::Subcommand)]
enum Command {
    /// Compare a policy's decisions with the expected ones
    #[command(after_help = "\
A test file names or holds a policy, and lists cases; see config/policy-tests.yaml. Exit status 1: a case failed.")]
    Test(policy_test::Args),
    /// Write a backend's tools, categories and rules as YAML files
    #[command(after_help = "\
The same policy is always the same files. A file that says the same already is not touched, so its comments stay.")]
    Pull(files::Pull),
    /// Show what would have to change at a backend for the files to be its policy
    #[command(after_help = EXIT)]
    Plan(files::MakePlan),
    /// Change a backend's policy to what the files say
    #[command(after_help = EXIT)]
    Apply(files::Apply),
}

/// Does what is asked.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    match &args.command {
        Command::Test(args) => policy_test::run(args, out),
        Command::Pull(args) => files::pull(args, out),
        Command::Plan(args) => files::show(args, out),
        Command::Apply(args) => files::apply(args, out),
    }
}
