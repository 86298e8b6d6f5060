//! Names of tool servers: looked up again in the background, by the system's resolver, to which a library from Debian
//! (libnss-wrapper) gives a file of the test's.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::policy::{AUDIENCE, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::config_text;
use crate::support::tool::Tool;
use crate::support::until;

/// Two tool servers of one port, at two addresses of this machine.
async fn two_of_one_port() -> (Tool, Tool, String) {
    let first = Tool::at("a", "127.0.0.2:0").await;
    let port = first.at.rsplit_once(':').unwrap().1.to_owned();
    let second = Tool::at("b", &format!("127.0.0.3:{port}")).await;
    (first, second, port)
}

/// The name is at this address.
fn points_to(hosts: &Path, address: &str) {
    // In one step: the resolver may read at any moment.
    let next = hosts.with_extension("next");
    std::fs::write(&next, format!("{address} tools.test\n")).unwrap();
    std::fs::rename(next, hosts).unwrap();
}

/// Which tool server answers.
async fn at(proxy: &Process) -> Option<String> {
    let answer = proxy.call("read").send().await.unwrap();
    let body: Value = answer.json().await.unwrap();
    body["result"]["at"].as_str().map(str::to_owned)
}

async fn follows_the_name(protocol: &str) {
    let (dir, backend) = (tempfile::tempdir().unwrap(), Backend::start(OrgBundle::new(5).signed()));
    let (first, second, port) = two_of_one_port().await;
    let hosts = dir.path().join("hosts");
    points_to(&hosts, "127.0.0.2");
    let route = json!({
        "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": AUDIENCE, "protocol": protocol,
        "upstream": format!("http://tools.test:{port}"), "dns_refresh_s": 1,
    });
    let file = dir.path().join("proxy.yaml");
    let text = config_text(dir.path(), &backend.url, "http://unused", &json!({"routes": [route]}));
    std::fs::write(&file, text).unwrap();
    let variables = [("LD_PRELOAD", "libnss_wrapper.so"), ("NSS_WRAPPER_HOSTS", hosts.to_str().unwrap())];
    let proxy = Process::start_in(&file, &variables);
    assert_eq!(at(&proxy).await.as_deref(), Some("a"), "is libnss-wrapper installed? See scripts/setup");

    // Both serve, and the old connection is open: what moves the calls is the name.
    points_to(&hosts, "127.0.0.3");
    until("the new address", async || (at(&proxy).await.as_deref() == Some("b")).then_some(())).await;
    let reached = first.came().len();
    drop(first);
    for _ in 0..3 {
        assert_eq!(at(&proxy).await.as_deref(), Some("b"));
    }
    // A resolver that knows nothing changes nothing, and no call asks it.
    points_to(&hosts, "# ");
    let failed =
        async || (proxy.metric("oakallow_upstream_lookup_failures_total").await >= 1.0).then_some(());
    until("a failed lookup", failed).await;
    assert_eq!(at(&proxy).await.as_deref(), Some("b"));
    // Where it was at first nobody listens any more, until somebody does again.
    points_to(&hosts, "127.0.0.2");
    until("an address at which nobody listens", async || at(&proxy).await.is_none().then_some(())).await;
    let again = Tool::at("c", &format!("127.0.0.2:{port}")).await;
    until("the first address again", async || (at(&proxy).await.as_deref() == Some("c")).then_some(())).await;
    assert!(reached >= 1 && !second.came().is_empty() && !again.came().is_empty());
}

#[tokio::test]
async fn calls_follow_a_name_to_another_address_without_a_restart() {
    follows_the_name("http1").await;
}

#[tokio::test]
async fn calls_follow_a_name_away_from_a_connection_that_they_share() {
    follows_the_name("http2").await;
}
