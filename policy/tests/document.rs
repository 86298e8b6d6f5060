//! Policy documents that are refused: file, line, column, message and hint, word for word.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use oakallow_policy::document::Document;

/// Asserts what is said about a document whose lines, after `org: demo`, are these.
fn refused(lines: &str, expected: &str) {
    whole_refused(&format!("org: demo\n{lines}"), expected);
}

fn whole_refused(text: &str, expected: &str) {
    let error = Document::parse("p.yaml", text).unwrap_err();
    assert_eq!(error.to_string(), expected, "\n{text}");
}

#[test]
fn unknown_keys() {
    whole_refused(
        "orgs: demo\n",
        "p.yaml:1:1: unknown field `orgs`, expected one of `org`, `unregistered`, `tenants`, `categories`, `tools`, \
         `kill_switches`, `rules`\n  hint: did you mean `org`?",
    );
    refused(
        "rules:\n  - tool: x\n    permision: allowed\n",
        "p.yaml:4:5: rules[0]: unknown field `permision`, expected one of `id`, `tenant`, `tenant_id`, `resource`, \
         `resource_id`, `tool`, `tool_name`, `method`, `permission`, `guardrail`\n  hint: did you mean `permission`?",
    );
    refused(
        "kill_switches:\n  - {scope: tool, id: x, until: 5}\n",
        "p.yaml:3:26: kill_switches[0]: invalid value: string \"until\", expected \"scope\" or \"id\"",
    );
}

#[test]
fn wrong_types() {
    refused(
        "tools:\n  - name: x\n    enabled: yes\n",
        "p.yaml:4:14: tools[0].enabled: invalid type: string \"yes\", expected a boolean\n  hint: write `true` or \
         `false`, without quotes",
    );
    refused("rules: allowed\n", "p.yaml:2:8: rules: invalid type: string \"allowed\", expected a sequence");
    whole_refused("org: [demo]\n", "p.yaml:1:6: org: invalid type: sequence, expected a name");
    whole_refused("~\n", "p.yaml:1:1: invalid type: unit value, expected a policy: a mapping with `org`");
    refused(
        "tools:\n  - name: x\n    approval: {timeout_s: soon}\n",
        "p.yaml:4:27: tools[0].approval.timeout_s: invalid type: string \"soon\", expected u32",
    );
}

#[test]
fn words_that_are_none_of_the_known() {
    refused(
        "rules:\n  - tool: x\n    permission: alowed\n",
        "p.yaml:4:17: rules[0].permission: unknown variant `alowed`, expected one of `allowed`, \
         `requires_approval`, `disabled`\n  hint: did you mean `allowed`?",
    );
    refused(
        "unregistered: by_rules\n",
        "p.yaml:2:15: unregistered: unknown variant `by_rules`, expected `requires_approval` or `by_rule`\n  hint: \
         did you mean `by_rule`?",
    );
    refused(
        "tools:\n  - name: x\n    risk_level: hgh\n",
        "p.yaml:4:17: tools[0].risk_level: unknown variant `hgh`, expected one of `low`, `medium`, `high`, \
         `critical`\n  hint: did you mean `high`?",
    );
}

#[test]
fn two_rules_with_one_selector_point_at_the_second() {
    refused(
        "rules:\n  - tool: x\n    permission: allowed\n  - tool: y\n    permission: allowed\n  - permission: disabled\n    tool: x\n",
        "p.yaml:7:5: rules `#1 (tool=x)` and `#3 (tool=x)` have the same scope and selector\n  hint: keep one of the \
         two; the first stands in line 3",
    );
    refused(
        "rules:\n  - {id: a, tool: x, permission: allowed}\n  - {id: b, tool: x, permission: disabled}\n",
        "p.yaml:4:5: rules `a` and `b` have the same scope and selector\n  hint: keep one of the two; the first \
         stands in line 3",
    );
    refused(
        "rules:\n  - {tool: x, permission: disabled, guardrail: true}\n  - {tool: x, permission: allowed}\n",
        "p.yaml:4:5: rules `#1 (tool=x)` and `#2 (tool=x)` have the same scope and selector\n  hint: keep one of the \
         two; the first stands in line 3",
    );
    let apart = "org: demo\ntenants: [a, b]\nrules:\n  - {tenant: a, tool: x, permission: allowed}\n  - {tenant: b, \
                 tool: x, permission: allowed}\n  - {tool: x, permission: allowed}\n";
    Document::parse("p.yaml", apart).unwrap();
}

#[test]
fn names_given_twice_point_at_the_second() {
    let hint = "\n  hint: keep one of the two; the first stands in line";
    refused(
        "rules:\n  - {id: a, tool: x, permission: allowed}\n  - {id: a, tool: y, permission: disabled}\n",
        &format!("p.yaml:4:10: rule `a` is defined twice{hint} 3"),
    );
    refused("tenants: [a, b, a]\n", &format!("p.yaml:2:17: tenant `a` is defined twice{hint} 2"));
    refused(
        "tools:\n  - name: x\n  - name: x\n    approved: true\n",
        &format!("p.yaml:4:11: tool `x` is defined twice{hint} 3"),
    );
    refused(
        "categories:\n  - name: a\n  - name: a\n",
        &format!("p.yaml:4:11: category `a` is defined twice{hint} 3"),
    );
}

#[test]
fn names_of_nothing() {
    refused(
        "tenants: [acme]\nrules:\n  - tenant: acmee\n    permission: allowed\n",
        "p.yaml:4:13: tenant `acmee` does not exist in this org\n  hint: did you mean `acme`?",
    );
    refused(
        "rules:\n  - tenant_id: acme\n    permission: allowed\n",
        "p.yaml:3:16: tenant `acme` does not exist in this org\n  hint: add it to `tenants`",
    );
    refused(
        "tenants: [acme]\nkill_switches:\n  - scope: tenant\n    id: amce\n",
        "p.yaml:5:9: tenant `amce` does not exist in this org\n  hint: did you mean `acme`?",
    );
    refused(
        "tools:\n  - name: x\n    category: infra\n",
        "p.yaml:4:15: tool `x` names the category `infra`, which does not exist\n  hint: add it to `categories`",
    );
    refused(
        "categories:\n  - name: infra\ntools:\n  - name: x\n    category: infar\n",
        "p.yaml:6:15: tool `x` names the category `infar`, which does not exist\n  hint: did you mean `infra`?",
    );
}

#[test]
fn misused_guardrails() {
    refused(
        "tenants: [acme]\nrules:\n  - tenant: acme\n    permission: disabled\n    guardrail: true\n",
        "p.yaml:6:16: rule `tenant=acme`: a guardrail is an org rule, it cannot name a tenant\n  hint: leave `tenant` \
         out, or leave `guardrail` out",
    );
    refused(
        "rules:\n  - tool: x\n    permission: allowed\n    guardrail: true\n",
        "p.yaml:4:17: rule `tool=x`: a guardrail is always `disabled`, not `allowed`\n  hint: write `permission: \
         disabled`, or leave `guardrail` out",
    );
}

#[test]
fn bad_names_and_limits() {
    whole_refused("org: ''\n", "p.yaml:1:6: org: a name must not be empty");
    refused(
        "rules:\n  - tool: \"a\\u200Bb\"\n    permission: allowed\n",
        "p.yaml:3:11: rules[0].tool: a name must not contain control or invisible characters (found U+200B)",
    );
    refused(
        "tools:\n  - name: x\n    approval:\n      levels: 3\n",
        "p.yaml:5:7: tool `x`: approval.levels is 1 or 2",
    );
}

/// A line left half-written must not make a rule that matches everything.
#[test]
fn a_selector_without_a_value() {
    for line in ["tool:", "tenant: ~", "resource: null", "method:"] {
        refused(
            &format!("rules:\n  - {line}\n    permission: allowed\n"),
            "p.yaml:3:5: rules[0]: `id`, `tenant`, `resource`, `tool` or `method` stands there without a value\n  \
             hint: give it one, or leave the line out to mean any",
        );
    }
    refused(
        "rules:\n  - tool: x\n",
        "p.yaml:3:5: rules[0]: missing field `permission`\n  hint: add `permission: allowed`, `requires_approval` or \
         `disabled`",
    );
}

#[test]
fn conditions() {
    let hint = "\n  hint: write one permission, such as `requires_approval`";
    refused(
        "rules:\n  - tool: x\n    permission:\n      - {when: x, permission: allowed}\n      - disabled\n",
        &format!(
            "p.yaml:5:9: rules[0].permission[0]: conditional verdicts (`when`) are not supported yet{hint}"
        ),
    );
    refused(
        "rules:\n  - tool: x\n    permission: [allowed, disabled]\n",
        &format!(
            "p.yaml:4:17: rules[0].permission: conditional verdicts (`when`) are not supported yet{hint}"
        ),
    );
    refused(
        "rules:\n  - tool: x\n    when: night\n    permission: allowed\n",
        &format!(
            "p.yaml:4:5: rules[0]: unknown field `when`, expected one of `id`, `tenant`, `tenant_id`, `resource`, \
             `resource_id`, `tool`, `tool_name`, `method`, `permission`, `guardrail`{hint}"
        ),
    );
    refused(
        "rules:\n  - tool: x\n    permission: []\n",
        "p.yaml:4:17: rules[0].permission: a verdict list must end in an unconditional permission",
    );
}

#[test]
fn duplicate_keys() {
    let hint = "\n  hint: keep one of the two";
    refused("org: other\n", &format!("p.yaml:1:1: duplicate field `org`{hint}"));
    refused(
        "rules:\n  - tool: x\n    tool_name: y\n    permission: allowed\n",
        &format!("p.yaml:3:5: rules[0]: duplicate field `tool_name`{hint}"),
    );
    refused(
        "tools:\n  - name: x\n    parameter_schema:\n      type: object\n      type: string\n",
        &format!("p.yaml:5:7: tools[0].parameter_schema: duplicate key `type`{hint}"),
    );
}

#[test]
fn what_is_no_document() {
    whole_refused("", "p.yaml:1:1: the file is empty");
    whole_refused("# only a remark\n", "p.yaml:2:1: the file is empty");
    whole_refused("---\n", "p.yaml:2:1: the file is empty");
    refused(
        "---\norg: other\n",
        "p.yaml: deserializing from YAML containing more than one document is not supported",
    );
    refused("rules: [\n", "p.yaml:3:1: did not find expected node content, while parsing a flow node");
    whole_refused("org: *x\n", "p.yaml:1:6: unknown anchor");
    refused(
        "tools:\n  - name: x\n    parameter_schema: {maximum: .nan}\n",
        "p.yaml:4:33: tools[0].parameter_schema.maximum: number out of range",
    );
}

/// Seven lists of nine aliases each: 9^8 elements when written out.
fn bomb(indent: &str) -> String {
    let mut text = format!("{indent}a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (last, next) in "abcdefg".chars().zip("bcdefgh".chars()) {
        let aliases = vec![format!("*{last}"); 9].join(",");
        text.push_str(&format!("{indent}{next}: &{next} [{aliases}]\n"));
    }
    text
}

#[test]
fn bombs_stay_small() {
    let started = Instant::now();
    refused(
        &format!("tools:\n  - name: x\n    parameter_schema:\n{}", bomb("      ")),
        "p.yaml: repetition limit exceeded",
    );
    let nested = |depth| format!("tools:\n  - name: x\n    parameter_schema: {}", "[".repeat(depth));
    refused(&nested(100_000), "p.yaml:4:1023: more than 1000 brackets are open");
    let closed = format!("{}{}\n", nested(70), "]".repeat(70));
    let error = Document::parse("p.yaml", &format!("org: demo\n{closed}")).unwrap_err();
    assert!(error.message.ends_with("nested deeper than 64"), "{error}");
    let blocks = format!("rules:\n  {}x\n", "- ".repeat(5_000));
    assert!(Document::parse("p.yaml", &format!("org: demo\n{blocks}")).is_err());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// A rule without an id is called by what it selects, wherever it stands.
#[test]
fn a_rule_without_an_id_has_a_stable_name() {
    let one = "org: demo\ntenants: [acme]\ntools: [{name: x}]\nrules:\n  - {tenant: acme, tool: x, permission: allowed}\n";
    let two = "org: demo\ntenants: [acme]\ntools: [{name: x}]\nrules:\n  - {permission: disabled}\n  - {tenant: acme, \
               resource: a b, permission: disabled}\n  - {tenant: acme, tool: x, permission: allowed}\n";
    let name = |text: &str, resource, tool: &str| {
        let rules = Document::parse("p.yaml", text).unwrap().compile(1).unwrap();
        let call = oakallow_policy::Call {
            org: "demo",
            tenant: Some("acme"),
            principal: "agent-1",
            audience: "default",
            tool,
            resource,
            method: None,
        };
        rules.resolve(&call).unwrap().rule().unwrap().to_owned()
    };
    assert_eq!(name(one, None, "x"), "tenant=acme tool=x");
    assert_eq!(name(two, None, "x"), "tenant=acme tool=x");
    assert_eq!(name(two, Some("a b"), "y"), "tenant=acme resource=\"a b\"");
    assert_eq!(name(two, None, "y"), "(everything)");
}
