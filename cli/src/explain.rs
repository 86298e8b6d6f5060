//! `oakallow explain`: how a call is decided by a policy document, gate by gate and level by level.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use oakallow_policy::resolve::{Explanation, Outcome, Step};

use crate::Done;
use crate::policy_file::{self, WrittenCall};

/// `oakallow explain`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The policy document
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    call: WrittenCall,
    /// Print the decision and the trace as JSON
    #[arg(long)]
    json: bool,
}

/// Decides the call and shows the trace.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let document = policy_file::read(&args.policy)?;
    let call = args.call.names(&document);
    let rules = document.compile(0)?;
    let explanation = rules.explain(&call.as_call()).with_context(|| refused(&args.call, &document))?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &explanation)?;
        writeln!(out)?;
    } else {
        table(&explanation, out)?;
    }
    Ok(Done::Ok)
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

fn table(explanation: &Explanation<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let decision = &explanation.decision;
    writeln!(out, "{}  (resolved_from: {})", decision.permission().as_str(), decision.resolved_from())?;
    if decision.unregistered() {
        writeln!(
            out,
            "The tool is not registered for this audience: what would be allowed requires approval."
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

fn row(step: &Step<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let (mark, outcome) = match step.outcome {
        Outcome::Matched => ("=>", "matched"),
        Outcome::Overridden => ("", "overridden"),
        Outcome::NoMatch => ("", "no match"),
        Outcome::NotApplicable => ("", "not applicable"),
    };
    let level = step.level.map_or_else(|| "gate".to_owned(), |level| level.to_string());
    let permission = step.permission.map_or("", |permission| permission.as_str());
    let line = format!(
        "{mark:<2} {level:<5}  {:<28}  {outcome:<14}  {permission:<17}  {}",
        step.at.as_str(),
        step.rule.unwrap_or_default()
    );
    writeln!(out, "{}", line.trim_end())?;
    Ok(())
}
