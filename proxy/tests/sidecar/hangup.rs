//! SIGHUP: files are read again at once, the same ones too.

use std::path::Path;

use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::pki;
use crate::support::policy::{AGENT, AUDIENCE, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::config_text;
use crate::support::tool::{Authority, Tool};
use crate::support::until;
use crate::support::upstream::Upstream;

/// Reads that somebody asked for: nothing else counts as `unchanged`.
const UNCHANGED: &str = "oakallow_certificate_reloads_total{result=\"unchanged\"}";
const APPLIED: &str = "oakallow_certificate_reloads_total{result=\"applied\"}";
const REFUSED: &str = "oakallow_certificate_reloads_total{result=\"refused\"}";

#[tokio::test]
async fn the_certificates_of_a_listener_are_read_at_once_and_a_held_call_stays() {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let (dir, authority) = (tempfile::tempdir().unwrap(), pki::Authority::new());
    let (certificate, key) = authority.server().write(dir.path());
    let data = json!([{"address": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}]);
    let more = json!({"listen": {"data": data, "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"}});
    let file = dir.path().join("proxy.yaml");
    std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &more)).unwrap();
    let proxy = Process::start(&file);
    let port = proxy.data.rsplit_once(':').unwrap().1.to_owned();
    let call = |authority: &pki::Authority, tool: &str| {
        let url = format!("https://localhost:{port}/tools/{tool}");
        authority.trusted(None).post(url).header("x-api-key", AGENT).json(&json!({"id": "42"})).send()
    };
    let counts = async |series: &str, count: f64| {
        until(series, async || (proxy.metric(series).await >= count).then_some(())).await;
    };
    let held = tokio::spawn(call(&authority, "ask"));
    until("a held call", async || (proxy.metric("oakallow_held_calls").await == 1.0).then_some(())).await;

    proxy.signal("HUP");
    counts(UNCHANGED, 1.0).await;
    // What is refused is told again to who asks again; who only looks tells it once.
    std::fs::write(&key, "nothing").unwrap();
    counts(REFUSED, 1.0).await;
    proxy.signal("HUP");
    counts(REFUSED, 2.0).await;
    assert_eq!(proxy.metric("oakallow_certificates_refused").await, 1.0);
    let next = pki::Authority::new();
    let _ = next.server().write(dir.path());
    proxy.signal("HUP");
    counts(APPLIED, 1.0).await;
    until("nothing refused", async || {
        (proxy.metric("oakallow_certificates_refused").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(call(&next, "read").await.unwrap().status(), 200);
    assert!(call(&authority, "read").await.is_err(), "the old authority");
    backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
}

/// A proxy before a tool server, with these members of its route.
struct Before {
    proxy: Process,
    _backend: Backend,
}

impl Before {
    fn start(dir: &Path, tool: &Tool, more: &Value, variables: &[(&str, &str)]) -> Self {
        let backend = Backend::start(OrgBundle::new(5).signed());
        let mut route = json!({
            "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": AUDIENCE,
            "upstream": "https://tools.test", "endpoints": [tool.at],
        });
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let file = dir.join("proxy.yaml");
        let text = config_text(dir, &backend.url, "http://unused", &json!({"routes": [route]}));
        std::fs::write(&file, text).unwrap();
        Self { proxy: Process::start_in(&file, variables), _backend: backend }
    }

    async fn status(&self) -> u16 {
        self.proxy.call("read").send().await.unwrap().status().as_u16()
    }

    /// How often certificates for the tool server were read again.
    fn reads(&self) -> usize {
        let said = "the certificates for a tool server were read again";
        self.proxy.log().iter().filter(|line| line.contains(said)).count()
    }

    async fn hangs_up(&self) {
        let before = self.reads();
        self.proxy.signal("HUP");
        until("certificates that are read again", async || (self.reads() > before).then_some(())).await;
    }
}

#[tokio::test]
async fn the_certificates_for_a_tool_server_are_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    ours.write(&dir.path().join("ca.pem"));
    ours.issue(dir.path(), "tools.test", "server");
    ours.issue(dir.path(), "proxy.test", "client");
    let tool = Tool::secured("a", ours.server(dir.path(), "server", true)).await;
    let file = |name: &str| dir.path().join(name);
    let tls = json!({"ca": file("ca.pem"), "certificate": file("client.crt"), "key": file("client.key")});
    let before = Before::start(dir.path(), &tool, &json!({"upstream_tls": tls, "protocol": "http1"}), &[]);
    assert_eq!(before.status().await, 200);
    // Nothing has changed, so only who asks has them read.
    before.hangs_up().await;
    assert_eq!(before.status().await, 200);
    other.issue(dir.path(), "proxy.test", "client");
    before.hangs_up().await;
    until("a certificate that is used and not accepted", async || {
        (before.status().await == 502).then_some(())
    })
    .await;
    ours.issue(dir.path(), "proxy.test", "client");
    before.hangs_up().await;
    until("one that is accepted", async || (before.status().await == 200).then_some(())).await;
}

#[tokio::test]
async fn the_systems_authorities_are_trusted_and_read_again_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    let system = dir.path().join("system.pem");
    ours.write(&system);
    ours.issue(dir.path(), "tools.test", "server");
    let tool = Tool::secured("a", ours.server(dir.path(), "server", false)).await;
    // Where OpenSSL and all that follow it look first; there is no folder beside it.
    let variables = [("SSL_CERT_FILE", system.to_str().unwrap())];
    let before = Before::start(dir.path(), &tool, &json!({}), &variables);
    assert_eq!(before.status().await, 200);
    other.write(&system);
    before.hangs_up().await;
    let reached = tool.came().len();
    assert_eq!(before.status().await, 502, "another authority's");
    ours.write(&system);
    before.hangs_up().await;
    assert_eq!(before.status().await, 200);
    assert_eq!(tool.came().len(), reached + 1);
}
