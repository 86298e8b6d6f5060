//! Tool servers that there is no connection to: why, in the log and in a metric.

use std::path::Path;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::backend::Backend;
use crate::support::policy::{AGENT, AUDIENCE, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::{client, config_text};
use crate::support::tool::Tool;
use crate::support::until;

const FAILURES: &str = "oakallow_upstream_connect_failures_total";

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A proxy with one route for each of these: its name, its `upstream`, and what else is in it.
fn proxy(dir: &Path, backend: &Backend, ways: &[(&str, &str, Value)]) -> Process {
    let route = |(name, upstream, more): &(&str, &str, Value)| {
        let mut route = json!({
            "name": name, "kind": "http", "path": format!("/{name}/{{tool}}"), "audience": AUDIENCE,
            "upstream": upstream,
        });
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route
    };
    let routes: Vec<Value> = ways.iter().map(route).collect();
    let config = dir.join("proxy.yaml");
    let text = config_text(dir, &backend.url, "http://127.0.0.1:1", &json!({"routes": routes}));
    std::fs::write(&config, text).unwrap();
    Process::start(&config)
}

async fn call(client: &reqwest::Client, proxy: &Process, route: &str) -> u16 {
    let call = client.post(format!("http://{}/{route}/read", proxy.data)).header("x-api-key", AGENT);
    call.body("{}").send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn why_there_is_no_connection_is_told_once_and_counted_by_its_reason() {
    let backend = Backend::start(OrgBundle::new(5).signed());
    let dir = tempfile::tempdir().unwrap();
    let tool = Tool::between_authorities("a", dir.path()).await;
    let plain = Tool::start("b").await;
    let tls = |ca: &str, name: &str| {
        let tls = json!({"ca": dir.path().join(ca), "server_name": name});
        json!({"endpoints": [tool.at], "upstream_tls": tls})
    };
    let refused = nobody().await;
    let socket = format!("unix:{}", dir.path().join("none.sock").display());
    let ways = [
        ("ca", "https://tools.test", tls("other.pem", "tools.test")),
        ("name", "https://tools.test", tls("ca.pem", "another.test")),
        ("clear", "https://tools.test", json!({"endpoints": [plain.at]})),
        ("port", "http://tools.test", json!({"endpoints": [refused]})),
        ("socket", "http://tools.test", json!({"endpoints": [socket]})),
        ("lookup", "http://tools.invalid", json!({})),
    ];
    let proxy = proxy(dir.path(), &backend, &ways);
    for (route, reason, why) in [
        ("ca", "tls", "no TLS: invalid peer certificate: BadSignature"),
        ("name", "tls", "not valid for name"),
        ("clear", "tls", "no TLS: received corrupt message"),
        ("port", "refused", "no connection: Connection refused"),
        ("socket", "refused", "no connection: No such file"),
        ("lookup", "lookup", "its name cannot be looked up: failed to lookup"),
    ] {
        for _ in 0..3 {
            assert_eq!(call(&client(), &proxy, route).await, 502, "{route}");
        }
        let of_route = |line: &&String| {
            line.contains(&format!("route=\"{route}\"")) && line.contains("a call found no connection")
        };
        let log = proxy.log();
        let told: Vec<&String> = log.iter().filter(of_route).collect();
        assert_eq!(told.len(), 1, "{route}: {told:?}");
        assert!(told[0].contains("WARN") && told[0].contains(why), "{route}: {}", told[0]);
        assert!(told[0].contains(&format!("reason=\"{reason}\"")), "{route}: {}", told[0]);
        let page = client().get(format!("http://{}/metrics", proxy.ops)).send().await.unwrap();
        let page = page.text().await.unwrap();
        let counted = |line: &&str| {
            line.starts_with(FAILURES) && line.contains(&format!("reason=\"{reason}\",route=\"{route}\"}} 3"))
        };
        assert_eq!(page.lines().filter(counted).count(), 1, "{route}");
    }
}

#[tokio::test]
async fn an_endpoint_that_goes_out_says_why() {
    let backend = Backend::start(OrgBundle::new(5).signed());
    let (dir, tool, gone) = (tempfile::tempdir().unwrap(), Tool::start("a").await, nobody().await);
    let sick = Tool::start("b").await;
    sick.is_well(http::StatusCode::SERVICE_UNAVAILABLE);
    let check = json!({"path": "/well", "interval_s": 1, "unhealthy_after": 1});
    let ways = [
        ("connected", "http://tools.test", json!({"endpoints": [tool.at, gone]})),
        ("checked", "http://tools.test", json!({"endpoints": [tool.at, sick.at], "health_check": check})),
    ];
    let proxy = proxy(dir.path(), &backend, &ways);
    for _ in 0..2 {
        assert_eq!(call(&client(), &proxy, "connected").await, 200);
    }
    for (route, why) in [
        ("connected", "no connection: Connection refused"),
        ("checked", "it answers 503 Service Unavailable"),
    ] {
        let says = |line: &String| {
            line.contains("no calls go to this endpoint")
                && line.contains(&format!("route=\"{route}\""))
                && line.contains(why)
        };
        until(why, async || proxy.log().iter().any(says).then_some(())).await;
    }
}

#[tokio::test]
async fn a_proxy_without_file_descriptors_holds_that_against_no_endpoint() {
    let backend = Backend::start(OrgBundle::new(5).signed());
    let (dir, first, second) = (tempfile::tempdir().unwrap(), Tool::start("a").await, Tool::start("b").await);
    let way = json!({"endpoints": [first.at, second.at]});
    let proxy = proxy(dir.path(), &backend, &[("two", "http://tools.test", way)]);
    // One connection for both calls.
    let agent = client();
    let disabled = agent.post(format!("http://{}/two/drop", proxy.data)).header("x-api-key", AGENT);
    let answer = disabled.body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 403);
    answer.bytes().await.unwrap();
    proxy.limit_open(true);
    assert_eq!(call(&agent, &proxy, "two").await, 502);
    proxy.limit_open(false);
    assert_eq!(call(&agent, &proxy, "two").await, 200, "at once");
    assert_eq!(proxy.metric("oakallow_upstream_endpoint_up").await, 2.0);
    let log = proxy.log();
    let told = log.iter().find(|line| line.contains("a call found no connection")).expect("it is told");
    assert!(told.contains("reason=\"local\"") && told.contains("Too many open files"), "{told}");
}
