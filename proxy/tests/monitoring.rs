//! What is shipped for Prometheus and Grafana, held against the guide: names that do not exist never fire.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use serde_json::Value;

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const RUNBOOKS: &str = include_str!("../../docs/guide/alerts.md");
const METRICS: &str = include_str!("../../docs/guide/metrics.md");
const DASHBOARDS: [&str; 3] = [
    include_str!("../../deploy/grafana/oakallow-proxy.json"),
    include_str!("../../deploy/grafana/oakallow-approvals.json"),
    include_str!("../../deploy/grafana/oakallow-health.json"),
];

/// The names of series that the guide lists.
fn documented() -> BTreeSet<String> {
    let rows =
        METRICS.lines().filter(|row| row.starts_with("| `oakallow_") || row.starts_with("| `process_"));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let suffixes: &[&str] = if cells[2] == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
        suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect::<Vec<_>>()
    })
    .collect()
}

/// The names of series in an expression; that of the job apart, whose value begins likewise.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("oakallow_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn alerts() -> Vec<Value> {
    let all: Value = serde_yaml::from_str(ALERTS).unwrap();
    let groups = all["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn panels() -> Vec<(String, Value)> {
    let boards = DASHBOARDS.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    boards
        .flat_map(|board| {
            let title = board["title"].as_str().unwrap().to_owned();
            board["panels"].as_array().unwrap().iter().map(|p| (title.clone(), p.clone())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn alerts_and_dashboards_ask_for_what_exists() {
    let documented = documented();
    assert!(documented.len() > 40);
    for alert in alerts() {
        let used = names(alert["expr"].as_str().unwrap());
        assert!(used.is_subset(&documented), "{}: {:?}", alert["alert"], used.difference(&documented));
    }
    for (title, panel) in panels() {
        for target in panel["targets"].as_array().unwrap() {
            let used = names(target["expr"].as_str().unwrap());
            assert!(!used.is_empty(), "{title}: {}", panel["title"]);
            assert!(used.is_subset(&documented), "{title}: {:?}", used.difference(&documented));
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let headings: Vec<&str> = RUNBOOKS.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    let names: Vec<&str> = alerts.iter().map(|alert| alert["alert"].as_str().unwrap()).collect();
    assert_eq!(names, headings);
    for (alert, section) in alerts.iter().zip(RUNBOOKS.split("\n## ").skip(1)) {
        let anchor = format!("docs/guide/alerts.md#{}", alert["alert"].as_str().unwrap().to_lowercase());
        assert_eq!(alert["annotations"]["runbook"], anchor);
        assert!(matches!(alert["labels"]["severity"].as_str(), Some("critical" | "warning")), "{alert}");
        assert!(section.contains("**What to do.**"), "{section}");
    }
}

#[test]
fn every_alert_has_a_test_that_it_fires_and_one_that_it_is_silent() {
    let tests: Value = serde_yaml::from_str(include_str!("../../deploy/prometheus/alerts_test.yml")).unwrap();
    for alert in alerts() {
        let of = |fires: bool| {
            tests["tests"].as_array().unwrap().iter().any(|test| {
                let rule = &test["alert_rule_test"][0];
                let expected = rule["exp_alerts"].as_array().unwrap();
                rule["alertname"] == alert["alert"] && expected.is_empty() != fires
            })
        };
        assert!(of(true) && of(false), "{}", alert["alert"]);
    }
}

#[test]
fn every_panel_says_what_it_shows_and_reads_the_chosen_data_source() {
    for text in DASHBOARDS {
        let board: Value = serde_json::from_str(text).unwrap();
        let variables = board["templating"]["list"].as_array().unwrap();
        assert!(variables.iter().any(|v| v["name"] == "datasource" && v["type"] == "datasource"));
    }
    let panels = panels();
    assert!(panels.len() > 30);
    for (title, panel) in panels {
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}: {panel}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}: {panel}");
        }
    }
}
