//! `oakallow audit`: whether the record is whole, and nothing ran without leave.

use std::io::Write;
use std::path::PathBuf;

use oakallow_backend::audit::{Verified, verify};

use crate::Done;
use crate::data_dir;
use crate::run::block_on;

/// `oakallow audit`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check every chain of an org, and that each forwarded call has a decision that allows it
    ///
    /// Reads the data directory, whether or not a backend runs on it; needs no credential and trusts no
    /// server. Exits with 1 when something is wrong.
    Verify {
        /// The backend's data directory, or that of `oakallow dev`
        #[arg(long, value_name = "DIR", default_value = "oakallow-data", env = "OAKALLOW_DATA_DIR")]
        data_dir: PathBuf,
        /// The org
        #[arg(long)]
        org: String,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Checks the record and says what was found.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let Command::Verify { data_dir, org, json } = &args.command;
    let data_dir = data_dir::existing(data_dir)?;
    let found = block_on(async { Ok(verify(&data_dir, org).await?) })?;
    if *json {
        serde_json::to_writer_pretty(&mut *out, &found)?;
        writeln!(out)?;
    } else {
        report(&found, out)?;
    }
    Ok(if found.is_sound() { Done::Ok } else { Done::Findings })
}

fn report(found: &Verified, out: &mut dyn Write) -> anyhow::Result<()> {
    for violation in &found.violations {
        writeln!(out, "VIOLATION  {violation}")?;
    }
    for (source, events) in &found.chains {
        writeln!(out, "chain      {source}: {events} events")?;
    }
    for txn in &found.open {
        writeln!(out, "open       {txn}: forwarded, no outcome recorded yet")?;
    }
    for token in &found.unshipped {
        writeln!(out, "open       {token}: redeemed, not yet shipped by the proxy that signed it")?;
    }
    for missing in &found.missing {
        writeln!(out, "missing    {missing}")?;
    }
    let verdict = if found.is_sound() { "sound" } else { "NOT SOUND" };
    writeln!(out, "{verdict}: {} events, {} calls forwarded", found.events, found.forwarded)?;
    Ok(())
}
