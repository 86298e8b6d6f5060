//! `oakallow explain`: how a call is decided by a policy document, gate by gate and level by level.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use oakallow_policy::call::CallNames;
use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use oakallow_policy::resolve::{Explanation, Outcome, Step};
use oakallow_policy::tool::default_audience;

use crate::Done;

/// `oakallow explain`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The policy document
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The tool that is called
    #[arg(long)]
    tool: Name,
    /// The tenant that calls; none: the org itself
    #[arg(long)]
    tenant: Option<Name>,
    /// What the tool acts on
    #[arg(long)]
    resource: Option<Name>,
    /// The kind of act
    #[arg(long)]
    method: Option<Name>,
    /// The tool server that is called [default: the one that the tool is registered for]
    #[arg(long)]
    audience: Option<Name>,
    /// Who calls (agent or key id); matters to kill switches only
    #[arg(long, value_name = "ID", default_value = "anyone")]
    principal: Name,
    /// Print the decision and the trace as JSON
    #[arg(long)]
    json: bool,
}

/// Decides the call and shows the trace.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let file = args.policy.display().to_string();
    let text = fs::read_to_string(&args.policy).with_context(|| format!("cannot read {file}"))?;
    let document = Document::parse(&file, &text)?;
    let call = call(args, &document);
    let rules = document.compile(0)?;
    let explanation = rules.explain(&call.as_call()).with_context(|| refused(args, &document))?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &explanation)?;
        writeln!(out)?;
    } else {
        table(&explanation, out)?;
    }
    Ok(Done::Ok)
}

fn call(args: &Args, document: &Document) -> CallNames {
    let registered = document.policy.tools.iter().find(|tool| tool.name == args.tool);
    let audience = args.audience.clone().or_else(|| registered.map(|tool| tool.audience.clone()));
    CallNames {
        org: document.policy.org.clone(),
        tenant: args.tenant.clone(),
        principal: args.principal.clone(),
        audience: audience.unwrap_or_else(default_audience),
        tool: args.tool.clone(),
        resource: args.resource.clone(),
        method: args.method.clone(),
    }
}

/// What to do when there is no decision.
fn refused(args: &Args, document: &Document) -> String {
    let tenants: Vec<&str> = document.policy.tenants.iter().map(Name::as_str).collect();
    match &args.tenant {
        Some(tenant) if !tenants.contains(&tenant.as_str()) => {
            format!("no decision for tenant `{tenant}` (the document has: {})", tenants.join(", "))
        }
        _ => "no decision, so the call would be refused".to_owned(),
    }
}

fn table(explanation: &Explanation<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let decision = &explanation.decision;
    writeln!(out, "{}  (resolved_from: {})", decision.permission.as_str(), decision.resolved_from)?;
    if decision.unregistered {
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
