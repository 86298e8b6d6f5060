//! A case against what the policy decides.

use std::fmt::Write as _;

use oakallow_policy::RuleSet;
use oakallow_policy::call::CallNames;
use oakallow_policy::resolve::{Decision, Explanation, ResolveError, Step};

use super::suite::{Case, Expected, NoDecision};

/// What is not as expected.
pub(super) fn judge(rules: &RuleSet, call: &CallNames, case: &Case) -> Option<String> {
    let found = rules.explain(&call.as_call());
    if !case.expect.is_met_by(&found) {
        return Some(format!("expected {}, {}", case.expect.told(), told(&found)));
    }
    case.trace.as_deref().zip(found.ok()).and_then(|(expected, found)| differences(expected, &found.trace))
}

type Found<'r> = Result<Explanation<'r>, ResolveError>;

/// Of a decision without a rule.
const NO_RULE: &str = "none";

impl Expected {
    fn is_met_by(&self, found: &Found<'_>) -> bool {
        match found {
            Err(error) => self.error == Some(NoDecision::of(error)),
            Ok(explanation) => self.error.is_none() && self.is_met_by_decision(&explanation.decision),
        }
    }

    fn is_met_by_decision(&self, decision: &Decision<'_>) -> bool {
        let rule = decision.rule().unwrap_or(NO_RULE);
        self.permission.is_none_or(|expected| expected == decision.permission())
            && self.resolved_from.is_none_or(|expected| expected == decision.resolved_from())
            && self.rule.as_deref().is_none_or(|expected| expected == rule)
            && self.unregistered.is_none_or(|expected| expected == decision.unregistered())
    }

    fn told(&self) -> String {
        if let Some(error) = self.error {
            return format!("no decision ({})", error.as_str());
        }
        let mut text = self.permission.map_or("a decision", |permission| permission.as_str()).to_owned();
        // Writing to a string cannot fail.
        let _ = self.resolved_from.iter().try_for_each(|from| write!(text, " from {from}"));
        let _ = self.rule.iter().try_for_each(|rule| write!(text, " (rule {rule})"));
        let _ =
            self.unregistered.iter().try_for_each(|unregistered| write!(text, " {}", known(*unregistered)));
        text
    }
}

fn told(found: &Found<'_>) -> String {
    match found {
        Err(error) => format!("there is no decision: {error} ({})", NoDecision::of(error).as_str()),
        Ok(Explanation { decision, .. }) => format!(
            "decided {} from {} (rule {}) {}",
            decision.permission(),
            decision.resolved_from(),
            decision.rule().unwrap_or(NO_RULE),
            known(decision.unregistered())
        ),
    }
}

fn known(unregistered: bool) -> &'static str {
    if unregistered { "for an unregistered tool" } else { "for a registered tool" }
}

/// Where two traces differ, step by step.
fn differences(expected: &[String], found: &[Step<'_>]) -> Option<String> {
    let found: Vec<String> = found.iter().map(line).collect();
    if expected == found {
        return None;
    }
    let mut text = "expected (-) and found (+) in the trace:".to_owned();
    for at in 0..expected.len().max(found.len()) {
        let (expected, found) = (expected.get(at), found.get(at));
        if expected != found {
            let _ = expected.iter().try_for_each(|step| write!(text, "\n  - {step}"));
            let _ = found.iter().try_for_each(|step| write!(text, "\n  + {step}"));
        }
    }
    Some(text)
}

/// A step as test files write it: gate or level, outcome, permission, rule.
fn line(step: &Step<'_>) -> String {
    let step = serde_json::to_value(step).unwrap_or_default();
    let words = ["at", "outcome", "permission", "rule"];
    words.iter().filter_map(|word| step.get(word)?.as_str()).collect::<Vec<_>>().join(" ")
}
