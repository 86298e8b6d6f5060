//! Golden decisions: `cases/*.yaml`. The proxy, the backend and the edge worker run the same files.
//!
//! A file has a policy document and calls with what is expected of each: `permission`, `resolved_from`,
//! `rule` (absent: none), `unregistered` (absent: false), or `error`; and for some the whole trace, a step
//! a line: gate or level, outcome, permission, rule.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use oakallow_policy::document::Document;
use oakallow_policy::resolve::{Explanation, ResolveError};
use oakallow_policy::ruleset::TenantRules;
use oakallow_policy::{Name, ResolvedFrom, RuleSet, call::CallNames};
use serde::Deserialize;

/// Fewest cases for each value of `resolved_from`.
const CASES_MIN: usize = 3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "for readers")]
    about: String,
    policy: String,
    /// Tenants whose rules are left out of the set.
    #[serde(default)]
    unloaded: Vec<Name>,
    /// The set is `RuleSet::closed`.
    #[serde(default)]
    closed: bool,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    call: Asked,
    expect: Expected,
    trace: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    org: Option<Name>,
    tenant: Option<Name>,
    principal: Option<Name>,
    audience: Option<Name>,
    tool: Name,
    resource: Option<Name>,
    method: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    permission: Option<String>,
    resolved_from: Option<String>,
    rule: Option<String>,
    #[serde(default)]
    unregistered: bool,
    error: Option<String>,
}

impl Asked {
    fn names(&self) -> CallNames {
        let or = |given: &Option<Name>, otherwise: &str| {
            given.clone().unwrap_or_else(|| Name::new(otherwise).unwrap())
        };
        CallNames {
            org: or(&self.org, "demo"),
            tenant: self.tenant.clone(),
            principal: or(&self.principal, "agent-1"),
            audience: or(&self.audience, "default"),
            tool: self.tool.clone(),
            resource: self.resource.clone(),
            method: self.method.clone(),
        }
    }
}

/// The rule set of a file, and its tenants' rules compiled apart.
struct Compiled {
    rules: RuleSet,
    apart: BTreeMap<Name, TenantRules>,
}

fn compile(file: &File) -> Compiled {
    let document = Document::parse("policy", &file.policy).unwrap_or_else(|e| panic!("{e}"));
    if file.closed {
        return Compiled { rules: RuleSet::closed(document.policy.org), apart: BTreeMap::new() };
    }
    let mut rules = RuleSet::compile(&document.policy, 7).unwrap();
    let mut apart = BTreeMap::new();
    for (tenant, own) in document.tenant_rules.iter().filter(|(t, _)| !file.unloaded.contains(t)) {
        let compiled = RuleSet::compile_tenant(tenant, own).unwrap();
        rules.attach(tenant, compiled.clone()).unwrap();
        apart.insert(tenant.clone(), compiled);
    }
    Compiled { rules, apart }
}

fn error_name(error: &ResolveError) -> &'static str {
    match error {
        ResolveError::Closed => "closed",
        ResolveError::WrongOrg => "wrong_org",
        ResolveError::UnknownTenant => "unknown_tenant",
        ResolveError::TenantNotLoaded => "tenant_not_loaded",
        ResolveError::ResourceRequired => "resource_required",
    }
}

fn found(explained: &Result<Explanation<'_>, ResolveError>) -> Expected {
    let empty =
        Expected { permission: None, resolved_from: None, rule: None, unregistered: false, error: None };
    match explained {
        Err(error) => Expected { error: Some(error_name(error).to_owned()), ..empty },
        Ok(Explanation { decision, .. }) => Expected {
            permission: Some(decision.permission().to_string()),
            resolved_from: Some(decision.resolved_from().to_string()),
            rule: decision.rule().map(str::to_owned),
            unregistered: decision.unregistered(),
            error: None,
        },
    }
}

fn steps(explanation: &Explanation<'_>) -> Vec<String> {
    let outcome = |o| serde_json::to_value(o).unwrap().as_str().unwrap().to_owned();
    let step = |s: &oakallow_policy::resolve::Step<'_>| {
        let mut line = format!("{} {}", s.at, outcome(s.outcome));
        s.permission.iter().for_each(|p| write!(line, " {p}").unwrap());
        s.rule.iter().for_each(|r| write!(line, " {r}").unwrap());
        line
    };
    explanation.trace.iter().map(step).collect()
}

/// Asks in each of the four ways; they must agree. What differs from the expectation, as lines.
fn differences(compiled: &Compiled, case: &Case) -> Vec<String> {
    let names = case.call.names();
    let call = names.as_call();
    let explained = compiled.rules.explain(&call);
    assert_eq!(
        compiled.rules.resolve(&call),
        explained.as_ref().map(|e| e.decision).map_err(Clone::clone),
        "explain and resolve differ"
    );
    if let Some(apart) = names.tenant.as_ref().and_then(|tenant| compiled.apart.get(tenant)) {
        assert_eq!(compiled.rules.resolve_with(&call, apart), compiled.rules.resolve(&call));
        assert_eq!(compiled.rules.explain_with(&call, apart), explained);
    }
    let mut lines = Vec::new();
    let found = found(&explained);
    if found != case.expect {
        lines.push(format!("  - {:?}", case.expect));
        lines.push(format!("  + {found:?}"));
    }
    if let (Some(expected), Ok(explanation)) = (&case.trace, &explained) {
        let steps = steps(explanation);
        for i in 0..expected.len().max(steps.len()) {
            let (want, got) = (expected.get(i), steps.get(i));
            if want != got {
                lines.push(format!("  - {}", want.map_or("", String::as_str)));
                lines.push(format!("  + {}", got.map_or("", String::as_str)));
            }
        }
    }
    if case.trace.is_some() && explained.is_err() {
        lines.push("  a trace is expected, and there is no decision".to_owned());
    }
    lines
}

fn files() -> Vec<(String, File)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let file = oakallow_policy::document::from_yaml(&name, &text).unwrap_or_else(|e| panic!("{e}"));
        (name, file)
    };
    paths.iter().map(read).collect()
}

#[test]
fn every_golden_decision_holds() {
    let mut wrong = String::new();
    for (name, file) in files() {
        let compiled = compile(&file);
        for case in &file.cases {
            let lines = differences(&compiled, case);
            if !lines.is_empty() {
                writeln!(wrong, "{name}: {}\n{}", case.name, lines.join("\n")).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "expected (-) and found (+):\n{wrong}");
}

#[test]
fn every_gate_and_level_has_its_cases() {
    let mut counted: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (_, file) in files() {
        for case in file.cases {
            let Some(from) = case.expect.resolved_from else { continue };
            assert!(ResolvedFrom::parse(&from).is_some(), "`{from}` is no gate or level");
            let (cases, traces) = counted.entry(from).or_default();
            *cases += 1;
            *traces += usize::from(case.trace.is_some());
        }
    }
    for from in ResolvedFrom::ALL {
        let (cases, traces) = counted.get(from.as_str()).copied().unwrap_or_default();
        assert!(cases >= CASES_MIN, "{from}: {cases} cases, at least {CASES_MIN} are wanted");
        assert!(traces >= 1, "{from}: no case has a trace");
    }
}

#[test]
fn every_error_has_a_case() {
    let all = files();
    for error in ["closed", "wrong_org", "unknown_tenant", "tenant_not_loaded", "resource_required"] {
        let has = |case: &Case| case.expect.error.as_deref() == Some(error);
        assert!(all.iter().any(|(_, file)| file.cases.iter().any(has)), "{error}");
    }
}
