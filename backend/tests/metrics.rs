//! The metrics that are exported, and the table that the guide has of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::json;
use support::Backend;

/// What the guide says of the backend, and of processes.
fn documented() -> BTreeMap<String, (String, Vec<String>)> {
    let guide = include_str!("../../docs/guide/metrics.md");
    let rows =
        guide.lines().filter(|l| l.starts_with("| `oakallow_backend_") || l.starts_with("| `process_"));
    let word = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        assert_eq!(cells.len(), 7, "{row}");
        let mut labels: Vec<String> =
            cells[3].split(',').map(word).filter(|label| !label.is_empty()).collect();
        labels.sort();
        (word(cells[1]), (word(cells[2]), labels))
    })
    .collect()
}

fn exported(page: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), labels(page, name)))).collect()
}

fn labels(page: &str, name: &str) -> Vec<String> {
    let series = ["{", "_bucket{"].map(|start| format!("{name}{start}"));
    let set = page.lines().find_map(|line| series.iter().find_map(|s| line.strip_prefix(s.as_str())));
    let set = set.and_then(|rest| rest.rsplit_once('}')).map_or("", |(set, _)| set);
    let pairs = set.split("\",").filter_map(|pair| pair.split_once('='));
    pairs.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect()
}

#[tokio::test]
async fn the_guide_lists_every_metric_with_its_type_and_labels_and_no_other() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.post("/v1/tools", json!({"name": "read_record", "audience": "tools"})).await;
    let agent = admin.standard(&[]).await;
    let check = agent.post("/v1/permissions/check", json!({"tool_name": "read_record"})).await;
    assert_eq!(check.status, 200, "{}", check.text);
    let page = backend.anonymous().get("/metrics").await.text;
    assert_eq!(exported(&page), documented());
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        line.unwrap_or_else(|| panic!("no {name} in:\n{page}"))
    };
    // The org, its key and the tool were recorded, and the tool was announced.
    assert!(value("oakallow_backend_audit_events") >= 3);
    assert!(value("oakallow_backend_feed_seq") >= 1);
    assert_eq!(value("oakallow_backend_proxies"), 0);
    assert_eq!(value("oakallow_backend_database_up"), 1);
    assert_eq!(value("oakallow_backend_approvals_pending"), 0);
}

#[tokio::test]
async fn a_backend_without_its_database_still_says_what_it_counts_itself() {
    let backend = Backend::start().await;
    assert_eq!(backend.anonymous().get("/healthz").await.status, 200);
    let mut db = backend.raw().await;
    let page = async || {
        let answer = backend.anonymous().get("/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    };
    for (becomes, up) in [("ALTER TABLE feed RENAME TO lost", 0), ("ALTER TABLE lost RENAME TO feed", 1)] {
        db.execute(becomes).await.unwrap();
        let page = page().await;
        assert!(page.contains(&format!("oakallow_backend_database_up {up}\n")), "{page}");
        assert!(page.contains("oakallow_backend_requests_total{"), "{page}");
        assert!(page.contains("process_resident_memory_bytes "), "{page}");
    }
}
