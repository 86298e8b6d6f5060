//! `oakallow`: the command line.
//!
//! Reading order: [`Command`] lists what there is; each command is a module of the same name. Commands
//! write what they are asked for to standard output, and logs to standard error.

mod address;
mod audit;
mod backend;
mod changes;
mod check;
mod client;
mod data_dir;
mod demo_tools;
mod dev;
mod differences;
mod doctor;
mod explain;
mod import;
mod kind;
mod logs;
mod policy;
mod policy_dir;
mod policy_file;
mod policy_test;
mod proxy;
mod run;
mod storage;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Govern, approve and audit the tool calls of AI agents.
#[derive(Parser)]
#[command(name = "oakallow", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Start here:  oakallow dev\nLogs:        RUST_LOG=info (or debug, or oakallow_proxy=debug,…)"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process, with a demo org to try
    Dev(dev::Args),
    /// Run the backend alone, or administer its data directory
    Backend(backend::Args),
    /// Run the proxy alone, or around one MCP server (--stdio)
    Proxy(proxy::Args),
    /// Run the demo tool server alone
    DemoTools(run::DemoToolsArgs),
    /// Check proxy configurations and policies
    Check(check::Args),
    /// Show how a call is decided, level by level: by files or by a backend
    Explain(explain::Args),
    /// Look at a deployment from the agent's place: is there a way around the proxy?
    Doctor(doctor::Args),
    /// Register the tools of an API that is described already
    Import(import::Args),
    /// Keep a policy in files: pull, test, plan, apply
    Policy(policy::Args),
    /// Check the audit log
    Audit(audit::Args),
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// All is well.
    Ok,
    /// It ran, and what it looked at is not in order.
    Findings,
    /// It ran, and there are differences that it did not do away with.
    Differences,
}

fn main() -> ExitCode {
    // Two providers are linked; whoever uses TLS first must not have to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match dispatch(Cli::parse().command) {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Findings) => ExitCode::FAILURE,
        Ok(Done::Differences) => ExitCode::from(2),
        Err(e) => {
            let _ = writeln!(io::stderr(), "error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<Done> {
    match command {
        Command::Dev(args) => dev::run(&args),
        Command::Backend(args) => backend::run(args, &mut io::stdout()),
        Command::Proxy(args) => proxy::run(args),
        Command::DemoTools(args) => run::demo_tools(args),
        Command::Check(args) => check::run(&args, &mut io::stdout()),
        Command::Explain(args) => explain::run(&args, &mut io::stdout()),
        Command::Audit(args) => audit::run(&args, &mut io::stdout()),
        Command::Doctor(args) => doctor::run(&args, &mut io::stdout()),
        Command::Import(args) => import::run(&args, &mut io::stdout()),
        Command::Policy(args) => policy::run(&args, &mut io::stdout()),
    }
}
