//! The metrics that are exported, and the table that the guide has of them.

use std::collections::{BTreeMap, BTreeSet};

use oakallow_policy::wire::ApprovalStatus;
use serde_json::json;

use crate::support::issuer::{AUD, ISS, Signer};
use crate::support::policy::OrgBundle;
use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

/// A metric's type and labels.
type Shape = (String, BTreeSet<String>);

/// What the guide says of the proxy.
fn documented() -> BTreeMap<String, Shape> {
    let guide = include_str!("../../../docs/guide/metrics.md");
    let section = guide.split("\n## ").find(|section| section.starts_with("Proxy\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let word = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        assert_eq!(cells.len(), 7, "{row}");
        assert!(!cells[4].trim().is_empty() && !cells[5].trim().is_empty(), "{row}");
        let labels = cells[3].split(',').map(word).filter(|label| !label.is_empty()).collect();
        (word(cells[1]), (word(cells[2]), labels))
    })
    .collect()
}

/// What the page says.
fn exported(page: &str) -> BTreeMap<String, Shape> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), labels(page, name)))).collect()
}

/// The labels of a metric's series.
fn labels(page: &str, name: &str) -> BTreeSet<String> {
    let suffixes = ["", "_bucket", "_sum", "_count"];
    let of = |line: &&str| suffixes.iter().any(|s| line.starts_with(&format!("{name}{s}{{")));
    let sets = page.lines().filter(of).filter_map(|line| line.split_once('{')?.1.rsplit_once('}'));
    let names = sets.flat_map(|(set, _)| set.split("\",")).filter_map(|pair| pair.split_once('='));
    names.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect()
}

async fn page(sidecar: &Sidecar) -> String {
    let answer = client().get(format!("http://{}/metrics", sidecar.proxy.ops)).send().await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test]
async fn the_guide_lists_every_metric_with_its_type_and_labels_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("jwks.json");
    std::fs::write(&keys, json!({"keys": [Signer::ed25519().jwk("one")]}).to_string()).unwrap();
    let data = json!([{"address": "127.0.0.1:0", "identities": ["keys", "corp"]}]);
    let sidecar = Sidecar::with(json!({
        "hold": {"budget_s": 30},
        "listen": {"data": data, "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "issuers": [{"name": "corp", "issuer": ISS, "audience": AUD, "jwks_file": keys}],
    }))
    .await;
    let read = async || (sidecar.metric("oakallow_issuer_key_reads_total").await > 0.0).then_some(());
    until("the keys", read).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    assert_eq!(sidecar.call("drop").send().await.unwrap().status(), 403);
    let held = tokio::spawn(sidecar.call("ask").send());
    until("the hold", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    assert!(sidecar.metric("oakallow_held_bytes").await > 0.0);
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    let stranger = client().post(format!("http://{}/tools/read", sidecar.proxy.data)).bearer_auth("a.b.c");
    assert_eq!(stranger.send().await.unwrap().status(), 401);
    sidecar.upstream.goes_away();
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 502);
    assert_eq!(exported(&page(&sidecar).await), documented());
}

#[tokio::test]
async fn what_happens_is_counted_where_it_happens() {
    let sidecar = Sidecar::with(json!({"limits": {"holds_max": 0, "spool_events_max": 77}})).await;
    until("the feed", async || (sidecar.metric("oakallow_feed_connected").await == 1.0).then_some(())).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    assert_eq!(sidecar.call("ask").send().await.unwrap().status(), 429);
    sidecar.backend.publish(6, OrgBundle::new(6).forged());
    let bad = "oakallow_bundles_refused_total{reason=\"signature\"} 1";
    until("the refusal of the bundle", async || page(&sidecar).await.contains(bad).then_some(())).await;
    sidecar.upstream.goes_away();
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 502);
    let page = page(&sidecar).await;
    for line in [
        "oakallow_holds_refused_total{limit=\"holds_max\"} 1",
        "oakallow_refusals_total{reason=\"too_many_holds\"} 1",
        "oakallow_tokens_minted_total{route=\"http\"} 2",
        "oakallow_upstream_errors_total{reason=\"upstream_unreachable\",route=\"http\"} 1",
        "oakallow_upstream_seconds_count{route=\"http\"} 1",
        "oakallow_policy_age_limit_seconds{risk=\"high\"} 300",
        "oakallow_route_info{audience=\"tools\",kind=\"mcp\",route=\"mcp\"} 1",
        "oakallow_spool_events_max 77",
        "oakallow_ready 1",
    ] {
        assert!(page.contains(line), "no {line} in:\n{page}");
    }
}

#[tokio::test]
async fn an_old_policy_and_a_lost_feed_show() {
    let mut sidecar = Sidecar::with(json!({"staleness": {"medium_s": 0}})).await;
    until("the feed", async || (sidecar.metric("oakallow_feed_connected").await == 1.0).then_some(())).await;
    sidecar.backend.stop();
    until("the loss", async || (sidecar.metric("oakallow_feed_connected").await == 0.0).then_some(())).await;
    let refused = async || (sidecar.call("read").send().await.unwrap().status() == 503).then_some(());
    until("a refusal", refused).await;
    let risk = "oakallow_staleness_refusals_total{risk=\"medium\"} 1";
    let page = page(&sidecar).await;
    assert!(page.contains(risk), "{page}");
}

#[tokio::test]
async fn connections_are_counted_and_so_are_those_without_a_place() {
    let more = json!({"limits": {"connections_max": 1}, "hold": {"budget_s": 30}});
    let sidecar = Sidecar::with(more).await;
    let held = tokio::spawn(sidecar.call("ask").send());
    until("the hold", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    assert_eq!(sidecar.metric("oakallow_connections").await, 1.0);
    let second = tokio::net::TcpStream::connect(sidecar.proxy.data).await.unwrap();
    let refused = async || (sidecar.metric("oakallow_connections_refused_total").await == 1.0).then_some(());
    until("the second", refused).await;
    drop(second);
    held.abort();
    until("the end", async || (sidecar.metric("oakallow_connections").await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn a_tool_that_is_listed_otherwise_than_before_shows_until_it_is_as_it_was() {
    let sidecar = Sidecar::start().await;
    for (description, changed) in [("reads", 0.0), ("deletes", 1.0), ("reads", 0.0)] {
        let tools = json!([{"name": "read", "description": description, "inputSchema": {"type": "object"}}]);
        let page = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}});
        sidecar.upstream.answers("application/json", &page.to_string());
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        assert_eq!(sidecar.rpc(&list).send().await.unwrap().status(), 200);
        assert_eq!(sidecar.metric("oakallow_changed_definitions").await, changed, "{description}");
    }
}
