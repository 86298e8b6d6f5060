//! `oakallow import`: tools of a service that is described already, registered with safe defaults.
//!
//! Reading order: a source ([`openapi`], [`mcp`]) makes [`found::Found`]; that against what the backend has makes a
//! [`plan::Plan`], which is shown, and made when somebody says so.

mod found;
mod mcp;
mod openapi;
mod plan;
mod script;
mod source;

use std::io::Write;

use clap::ValueEnum;
use oakallow_policy::id::Name;

use self::found::Found;
use self::plan::{Plan, Present};
use crate::Done;
use crate::changes;
use crate::client::BackendArgs;
use crate::differences::tame;
use crate::run::block_on;

/// `oakallow import`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXIT: &str = "\
What writes requires approval; nothing is allowed by an import. Description and schema follow the source; category,
risk and permission are set when a tool is created, and not touched again. Nothing is deleted.
Exit status: 0 done, or nothing to do; 1 failed, or something cannot be imported; 2 there are changes, not made.";

#[derive(clap::Subcommand)]
enum Command {
    /// Register the operations of an OpenAPI 3.0 or 3.1 document
    #[command(after_help = EXIT)]
    Openapi {
        /// File or URL of the document, JSON or YAML; `-` for standard input
        #[arg(value_name = "FILE|URL")]
        source: String,
        #[command(flatten)]
        options: Options,
    },
    /// Register the tools that a running MCP server lists
    #[command(after_help = EXIT)]
    Mcp {
        #[command(flatten)]
        server: mcp::Server,
        #[command(flatten)]
        options: Options,
    },
}

/// What both sources take.
#[derive(clap::Args)]
struct Options {
    #[command(flatten)]
    defaults: Defaults,
    #[command(flatten)]
    backend: BackendArgs,
    /// Make the changes without asking
    #[arg(long)]
    yes: bool,
    /// Import the rest when something cannot be imported
    #[arg(long)]
    skip_refused: bool,
    /// Print a script that does the same, and change nothing; needs no backend
    #[arg(long, value_enum, conflicts_with = "yes")]
    script: Option<Script>,
}

/// What tools are made with that the source does not say.
#[derive(clap::Args)]
pub(crate) struct Defaults {
    /// The tool server that offers the tools, as the proxy's routes name it
    #[arg(long, value_name = "NAME", default_value_t = oakallow_policy::tool::default_audience())]
    audience: Name,
    /// Category of tools for which the source has none
    #[arg(long, value_name = "NAME")]
    category: Option<Name>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Script {
    /// For bash, with curl and jq
    Curl,
}

/// Reads the source, shows what would change, and changes it when somebody says so.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    block_on(async {
        match &args.command {
            Command::Openapi { source, options } => {
                let text = source::read(source).await?;
                let source = source::shown(source);
                let found = openapi::read(&source, &text, &options.defaults)?;
                import(found, &source, options, out).await
            }
            Command::Mcp { server, options } => {
                let found = server.read(options.backend.key_env(), &options.defaults).await?;
                import(found, &server.shown(), options, out).await
            }
        }
    })
}

async fn import(found: Found, source: &str, options: &Options, out: &mut dyn Write) -> anyhow::Result<Done> {
    if found.len() == 0 {
        anyhow::bail!("{source} has no tools");
    }
    if let Some(Script::Curl) = options.script {
        script::write(&found, source, out)?;
        let stop = !found.refused.is_empty() && !options.skip_refused;
        return Ok(if stop { Done::Findings } else { Done::Ok });
    }
    let client = options.backend.client()?;
    let present = Present::fetch(&client).await?;
    let audience = &options.defaults.audience;
    let plan = Plan::new(found, &present, audience);
    writeln!(out, "{} -> {}, audience {audience}\n", tame(source), client.base())?;
    show(&plan, out)?;
    if !plan.refused.is_empty() && !options.skip_refused {
        writeln!(out, "Nothing was changed: --skip-refused imports the rest.")?;
        return Ok(Done::Findings);
    }
    if plan.changes.is_empty() {
        return Ok(Done::Ok);
    }
    if !changes::confirmed(options.yes, out)? {
        return Ok(Done::Differences);
    }
    changes::make(&client, &plan.changes, Some(present.version)).await?;
    writeln!(out, "Done.")?;
    Ok(Done::Ok)
}

fn show(plan: &Plan, out: &mut dyn Write) -> anyhow::Result<()> {
    changes::show(&plan.changes, out)?;
    for (origin, reason) in &plan.refused {
        writeln!(out, "! {}: {}", tame(origin), tame(reason))?;
    }
    for (tool, note) in &plan.notes {
        writeln!(out, "note: {}: {}", tame(tool), tame(note))?;
    }
    for name in &plan.missing {
        writeln!(out, "note: {}: registered for this audience, not in the source; it stays", tame(name))?;
    }
    let (unchanged, refused) = (plan.unchanged, plan.refused.len());
    let changes = changes::summary(&plan.changes);
    writeln!(out, "{changes}, {unchanged} unchanged, {refused} refused")?;
    Ok(())
}
