//! Why a call needs a person, in words. Levels and rule ids are for those who wrote the rules.

use oakallow_policy::ResolvedFrom;
use oakallow_policy::level::{Level, RuleScope};

use crate::approvals::decide::DecideError;
use crate::store::approvals::Approval;

/// Why, and behind it where to look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) words: String,
    /// `L4`
    pub(super) level: Option<String>,
}

/// Whether it makes a difference if somebody registered the tool: what does not name it is no answer to
/// who knows it.
pub(super) fn depends_on_registration(resolved_from: &str) -> bool {
    match ResolvedFrom::parse(resolved_from) {
        Some(ResolvedFrom::Rule(_, level)) => !level.names_tool(),
        Some(from) => from == ResolvedFrom::FailSafe,
        None => false,
    }
}

/// The tool server says something else of the tool than when it was pinned, whatever a rule says of it.
pub(super) fn described_anew() -> Why {
    let words = "The tool server describes this tool otherwise than before: see what changed.";
    Why { words: words.to_owned(), level: None }
}

/// Why this one waits.
pub(super) fn why(approval: &Approval, registered: bool) -> Why {
    let parsed = ResolvedFrom::parse(&approval.resolved_from);
    let level = parsed.and_then(ResolvedFrom::level).map(|level| format!("L{}", level.number()));
    let words = match parsed {
        Some(ResolvedFrom::Rule(scope, level)) => {
            let whose = match (scope, &approval.tenant) {
                (RuleScope::Tenant, Some(tenant)) => format!("tenant {tenant}"),
                (RuleScope::Tenant, None) => "the tenant".to_owned(),
                (RuleScope::Org, _) => "the org".to_owned(),
            };
            let selected = selected(level);
            if registered {
                format!("A rule of {whose} for {selected} asks for a person.")
            } else {
                format!("Nobody registered this tool. What it meets is a rule of {whose} for {selected}.")
            }
        }
        Some(ResolvedFrom::FailSafe) if registered => {
            "No rule and no default says what to do with this tool.".to_owned()
        }
        Some(ResolvedFrom::FailSafe) => "Nobody registered this tool.".to_owned(),
        Some(ResolvedFrom::ToolDefault) => "This tool asks for a person by default.".to_owned(),
        Some(ResolvedFrom::CategoryDefault) => {
            "The tools of its category ask for a person by default.".to_owned()
        }
        Some(ResolvedFrom::Guardrail) => "A guardrail of the org asks for a person.".to_owned(),
        _ => approval.resolved_from.replace('_', " "),
    };
    Why { words, level }
}

const fn selected(level: Level) -> &'static str {
    match level {
        Level::ResourceToolMethod => "this tool with this resource and method",
        Level::ResourceTool => "this tool with this resource",
        Level::ToolMethod => "this tool with this method",
        Level::Tool => "this tool",
        Level::ResourceMethod => "this resource with this method",
        Level::Resource => "this resource",
        Level::Method => "this method",
        _ => "every call",
    }
}

/// Why this person may not decide it.
pub(super) fn barred(error: &DecideError) -> String {
    match error {
        DecideError::Role => "Your role does not decide approvals.".to_owned(),
        DecideError::SelfApproval => {
            "You answer for the agent that asks, so somebody else must decide.".to_owned()
        }
        other => format!("You cannot decide this one ({other})."),
    }
}
