//! Changes to a policy: shown before they are made, and then made as they were shown.
//!
//! Each is one request. They are made in order, each only while nobody else changes the policy: the version
//! grows by one with every change, so another step in it is somebody else's.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Client;
use crate::differences::tame;
use crate::run::Stop;

/// Lines that say what changes in one thing; the rest is counted.
const DETAILS_MAX: usize = 12;
/// Changes after which progress is told.
const TOLD_EACH: usize = 50;

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    Create,
    Change,
    Delete,
}

impl Act {
    fn mark(self) -> char {
        match self {
            Self::Create => '+',
            Self::Change => '~',
            Self::Delete => '-',
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }
}

/// One change, and the request that makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) act: Act,
    /// `tool restart_service`
    pub(crate) what: String,
    /// What is to be known about it, a line each.
    pub(crate) details: Vec<String>,
    pub(crate) method: Verb,
    /// Path, with its query.
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) body: Value,
}

/// The methods of requests that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Verb {
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    fn method(self) -> Method {
        match self {
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

/// Shows the changes, a line each with what is to be known below it.
pub(crate) fn show(changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
    for change in changes {
        writeln!(out, "{} {}", change.act.mark(), tame(&change.what))?;
        for detail in change.details.iter().take(DETAILS_MAX) {
            writeln!(out, "    {}", tame(detail))?;
        }
        if let Some(more) = change.details.len().checked_sub(DETAILS_MAX).filter(|more| *more > 0) {
            writeln!(out, "    and {more} more")?;
        }
    }
    Ok(())
}

/// `2 to create, 1 to change, 0 to delete`
pub(crate) fn summary(changes: &[Change]) -> String {
    let counted = [Act::Create, Act::Change, Act::Delete].map(|act| {
        let count = changes.iter().filter(|change| change.act == act).count();
        format!("{count} to {}", act.verb())
    });
    counted.join(", ")
}

/// Whether to go on: asked at a terminal, unless it was said beforehand.
pub(crate) fn confirmed(yes: bool, out: &mut dyn Write) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        writeln!(out, "Nothing was changed: say --yes to make these changes.")?;
        return Ok(false);
    }
    write!(out, "Make these changes? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !yes {
        writeln!(out, "Nothing was changed.")?;
    }
    Ok(yes)
}

/// Makes the changes, the policy being at `version`; `None` makes them whatever others do. SIGINT and SIGTERM
/// stop it between two of them.
pub(crate) async fn make(
    client: &Client,
    changes: &[Change],
    mut version: Option<u64>,
) -> anyhow::Result<()> {
    if let Some(planned) = version {
        unchanged(planned, client.policy_version().await?)?;
    }
    let stopped = stop_flag()?;
    let told =
        |made: usize| format!("{made} of {} changes were made; run it again to see the rest", changes.len());
    for (before, change) in changes.iter().enumerate() {
        if stopped.load(Ordering::Relaxed) {
            bail!("stopped: {}", told(before));
        }
        request(client, change).await.with_context(|| told(before))?;
        let made = before + 1;
        if let Some(version) = &mut version {
            nobody_else(client, version).await.with_context(|| told(made))?;
        }
        if made % TOLD_EACH == 0 {
            let _ = writeln!(io::stderr(), "{made} of {} changes made", changes.len());
        }
    }
    Ok(())
}

async fn request(client: &Client, change: &Change) -> anyhow::Result<()> {
    let body = Some(&change.body).filter(|body| !body.is_null());
    let made = client.send(&change.method.method(), &change.path, body).await;
    made.map(drop).with_context(|| format!("cannot {} {}", change.act.verb(), tame(&change.what)))
}

/// Takes the next version, unless it is not the next.
async fn nobody_else(client: &Client, version: &mut u64) -> anyhow::Result<()> {
    let now = client.policy_version().await?;
    if now != *version + 1 {
        bail!("somebody else changed the policy at the same time (version {now})");
    }
    *version = now;
    Ok(())
}

/// Refuses unless the policy is as it was.
fn unchanged(planned: u64, now: u64) -> anyhow::Result<()> {
    if planned == now {
        return Ok(());
    }
    bail!("the policy was changed since this was planned (version {planned}, now {now}): plan again")
}

/// Set by the first SIGINT or SIGTERM; the request that is on its way is waited for.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (flag, mut stop) = (Arc::clone(&stopped), Stop::listen()?);
    tokio::spawn(async move {
        stop.requested().await;
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stopped)
}
