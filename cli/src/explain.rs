//! `oakallow explain`: how a call is decided, gate by gate and level by level; by files, or by a backend.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Done;
use crate::client::BackendArgs;
use crate::policy_file::{self, WrittenCall};
use crate::run::block_on;

/// `oakallow explain`
#[derive(clap::Args)]
#[command(after_help = "\
Without --policy the backend is asked, with a management key: by the policy that it has now. Nothing is recorded, and
nothing is called.")]
pub(crate) struct Args {
    /// The policy: a document, or a directory [default: that of the backend]
    #[arg(long, value_name = "FILE|DIR")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    call: WrittenCall,
    /// Print the decision and the trace as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

/// What is shown, as both sources say it.
#[derive(Deserialize)]
struct Shown {
    decision: Decided,
    trace: Vec<Step>,
}

#[derive(Deserialize)]
struct Decided {
    permission: String,
    resolved_from: String,
    #[serde(default)]
    unregistered: bool,
    #[serde(default)]
    definition_changed: bool,
}

#[derive(Deserialize)]
struct Step {
    at: String,
    level: Option<u8>,
    outcome: String,
    permission: Option<String>,
    rule: Option<String>,
}

/// Decides the call and shows the trace.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let explanation = match &args.policy {
        Some(policy) => offline(policy, &args.call)?,
        None => asked(args)?,
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &explanation)?;
        writeln!(out)?;
    } else {
        table(&serde_json::from_value(explanation).context("the explanation")?, out)?;
    }
    Ok(Done::Ok)
}

fn offline(policy: &Path, call: &WrittenCall) -> anyhow::Result<Value> {
    let document = policy_file::read(policy)?;
    let names = call.names(&document);
    let rules = document.compile(0)?;
    let explanation = rules.explain(&names.as_call()).with_context(|| refused(call, &document))?;
    Ok(serde_json::to_value(&explanation)?)
}

/// What the backend says to the same question.
fn asked(args: &Args) -> anyhow::Result<Value> {
    let WrittenCall { tool, tenant, resource, method, audience, principal, .. } = &args.call;
    let body = json!({"principal": principal, "call": {"tool_name": tool, "tenant_id": tenant,
        "resource_id": resource, "method": method, "audience": audience}});
    block_on(async {
        let client = args.backend.client()?;
        let mut answer = client.send(&Method::POST, "/v1/rules/simulate", Some(&body)).await?;
        if let Some(members) = answer.as_object_mut() {
            members.remove("current");
        }
        Ok(answer)
    })
}

/// Why there may be no decision: every name that the document does not have, with those that it has.
fn refused(call: &WrittenCall, document: &Document) -> String {
    let policy = &document.policy;
    let mut unknown = Vec::new();
    if let Some(tenant) = call.tenant.as_ref().filter(|tenant| !policy.tenants.contains(tenant)) {
        unknown.push(format!("has no tenant `{tenant}` (it has: {})", listed(&policy.tenants)));
    }
    if !policy.tools.iter().any(|tool| tool.name == call.tool) {
        let known = listed(policy.tools.iter().map(|tool| &tool.name));
        unknown.push(format!("has no tool `{}` (it has: {known})", call.tool));
    }
    if unknown.is_empty() {
        return "no decision, so the call would be refused".to_owned();
    }
    format!("no decision: the document {}", unknown.join(", and "))
}

fn listed<'n>(names: impl IntoIterator<Item = &'n Name>) -> String {
    let names: Vec<&str> = names.into_iter().map(Name::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn table(explanation: &Shown, out: &mut dyn Write) -> anyhow::Result<()> {
    let decision = &explanation.decision;
    writeln!(out, "{}  (resolved_from: {})", decision.permission, decision.resolved_from)?;
    if decision.unregistered {
        writeln!(
            out,
            "The tool is not registered for this audience: what would be allowed requires approval."
        )?;
    }
    if decision.definition_changed {
        writeln!(
            out,
            "Its server describes the tool otherwise than it was pinned: it is not trusted as it was."
        )?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "   {:<5}  {:<28}  {:<14}  {:<17}  rule",
        "level", "gate or selector", "outcome", "permission"
    )?;
    for step in &explanation.trace {
        row(step, out)?;
    }
    Ok(())
}

fn row(step: &Step, out: &mut dyn Write) -> anyhow::Result<()> {
    let mark = if step.outcome == "matched" { "=>" } else { "" };
    let outcome = step.outcome.replace('_', " ");
    let level = step.level.map_or_else(|| "gate".to_owned(), |level| level.to_string());
    let permission = step.permission.as_deref().unwrap_or_default();
    let rule = step.rule.as_deref().unwrap_or_default();
    let line = format!("{mark:<2} {level:<5}  {:<28}  {outcome:<14}  {permission:<17}  {rule}", step.at);
    writeln!(out, "{}", line.trim_end())?;
    Ok(())
}
