//! `oakallow policy pull|plan|apply`: a backend's policy and its files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use serde::{Deserialize, Serialize};

use super::plan;
use super::state::Present;
use crate::Done;
use crate::changes::{self, Change};
use crate::client::{BackendArgs, Client};
use crate::differences::tame;
use crate::policy_dir;
use crate::run::block_on;

/// The form of a plan's file.
const FORMAT: u32 = 1;

/// `oakallow policy pull`
#[derive(clap::Args)]
pub(super) struct Pull {
    /// The directory; made when it is not there
    #[arg(value_name = "DIR", default_value = "policy")]
    dir: PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
}

/// `oakallow policy plan`
#[derive(clap::Args)]
pub(super) struct MakePlan {
    /// The policy: a directory, or a document of one file
    #[arg(value_name = "DIR|FILE", default_value = "policy")]
    policy: PathBuf,
    /// Write the plan to a file, for `oakallow policy apply --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    backend: BackendArgs,
}

/// `oakallow policy apply`
#[derive(clap::Args)]
pub(super) struct Apply {
    /// The policy: a directory, or a document of one file
    #[arg(value_name = "DIR|FILE", default_value = "policy", conflicts_with = "plan")]
    policy: PathBuf,
    /// Make exactly the changes of a plan that was written before
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Make them even if the policy was changed since the plan
    #[arg(long, requires = "plan")]
    even_if_changed: bool,
    /// Make the changes without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

/// A plan as it is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    format: u32,
    org: Name,
    /// What it was made for.
    policy_version: u64,
    changes: Vec<Change>,
}

/// Writes what the backend has.
pub(super) fn pull(args: &Pull, out: &mut dyn Write) -> anyhow::Result<Done> {
    block_on(async {
        let client = args.backend.client()?;
        let present = Present::fetch(&client).await?;
        let done = policy_dir::write(&args.dir, &present.document)?;
        for file in &done.written {
            writeln!(out, "wrote {}", file.display())?;
        }
        for file in &done.removed {
            writeln!(out, "removed {}", file.display())?;
        }
        let (version, kept) = (present.version, done.kept);
        writeln!(
            out,
            "version {version} of the policy of org `{}`, {kept} files as they were",
            org(&present)
        )?;
        Ok(Done::Ok)
    })
}

fn org(present: &Present) -> &Name {
    &present.document.policy.org
}

/// Shows what `apply` would change.
pub(super) fn show(args: &MakePlan, out: &mut dyn Write) -> anyhow::Result<Done> {
    let wanted = crate::policy_file::read(&args.policy)?;
    block_on(async {
        let client = args.backend.client()?;
        let plan = made(&client, &wanted, out).await?;
        if let Some(file) = &args.out {
            let text = serde_json::to_string_pretty(&plan)?;
            fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(if plan.changes.is_empty() { Done::Ok } else { Done::Differences })
    })
}

/// Plans, and shows the plan.
async fn made(client: &Client, wanted: &Document, out: &mut dyn Write) -> anyhow::Result<Plan> {
    let present = Present::fetch(client).await?;
    of_one_org(&wanted.policy.org, org(&present))?;
    let changes = plan::changes(&present.document, wanted);
    let plan =
        Plan { format: FORMAT, org: wanted.policy.org.clone(), policy_version: present.version, changes };
    print(&plan, client, out)?;
    for (tenant, rules) in plan::unmanaged(&present.document, wanted) {
        let tenant = tame(tenant);
        writeln!(out, "note: tenant {tenant} is not in the files: it stays, with its {rules} rules")?;
    }
    if !wanted.policy.kill_switches.is_empty() {
        writeln!(out, "note: kill switches are not a matter of files: they stay as they are")?;
    }
    Ok(plan)
}

fn print(plan: &Plan, client: &Client, out: &mut dyn Write) -> anyhow::Result<()> {
    let Plan { org, policy_version, changes, .. } = plan;
    writeln!(out, "org `{}` at {}, version {policy_version}\n", tame(org), client.base())?;
    changes::show(changes, out)?;
    writeln!(out, "{}", changes::summary(changes))?;
    Ok(())
}

/// The files of one org are nothing for another.
fn of_one_org(files: &Name, key: &Name) -> anyhow::Result<()> {
    if files == key {
        return Ok(());
    }
    bail!("the files are of org `{files}`, and the key is of org `{key}`")
}

/// Makes the changes of a plan: of one that is made now, or of one that was kept.
pub(super) fn apply(args: &Apply, out: &mut dyn Write) -> anyhow::Result<Done> {
    block_on(async {
        let client = args.backend.client()?;
        match &args.plan {
            Some(file) => apply_kept(&client, file, args, out).await,
            None => apply_now(&client, args, out).await,
        }
    })
}

async fn apply_now(client: &Client, args: &Apply, out: &mut dyn Write) -> anyhow::Result<Done> {
    let wanted = crate::policy_file::read(&args.policy)?;
    let plan = made(client, &wanted, out).await?;
    if plan.changes.is_empty() {
        return Ok(Done::Ok);
    }
    if !changes::confirmed(args.yes, out)? {
        return Ok(Done::Differences);
    }
    changes::make(client, &plan.changes, Some(plan.policy_version)).await?;
    let left = plan::changes(&Present::fetch(client).await?.document, &wanted);
    if !left.is_empty() {
        writeln!(out, "The changes were made, and these differences are left:")?;
        changes::show(&left, out)?;
        return Ok(Done::Differences);
    }
    writeln!(out, "Done.")?;
    Ok(Done::Ok)
}

async fn apply_kept(client: &Client, file: &Path, args: &Apply, out: &mut dyn Write) -> anyhow::Result<Done> {
    let plan = kept(file)?;
    let present = Present::fetch(client).await?;
    of_one_org(&plan.org, org(&present))?;
    let version = (!args.even_if_changed).then_some(plan.policy_version);
    if version.is_some_and(|planned| planned != present.version) {
        let (planned, now) = (plan.policy_version, present.version);
        bail!(
            "the policy was changed since the plan was made (version {planned}, now {now}): plan again, or say \
             --even-if-changed"
        );
    }
    print(&plan, client, out)?;
    if plan.changes.is_empty() {
        return Ok(Done::Ok);
    }
    if !changes::confirmed(args.yes, out)? {
        return Ok(Done::Differences);
    }
    changes::make(client, &plan.changes, version).await?;
    writeln!(out, "Done.")?;
    Ok(Done::Ok)
}

/// A plan, which may change a policy and nothing else.
fn kept(file: &Path) -> anyhow::Result<Plan> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("{name} is no plan"))?;
    if plan.format != FORMAT {
        bail!("{name} is a plan of another version of oakallow: plan again");
    }
    let known = ["/v1/tools", "/v1/categories", "/v1/rules", "/v1/tenants", "/v1/settings"];
    let strange = |change: &&Change| {
        let rest = known.iter().find_map(|known| change.path.strip_prefix(known));
        !rest.is_some_and(|rest| {
            rest.is_empty() || (rest.starts_with('/') && rest.split('/').all(|part| part != ".."))
        })
    };
    if let Some(change) = plan.changes.iter().find(strange) {
        bail!("{name} changes {}, which is no part of a policy", tame(&change.path));
    }
    Ok(plan)
}
