//! Another configuration for a proxy that runs.

use std::path::PathBuf;

use oakallow_policy::audit::EventType;
use oakallow_policy::wire::ApprovalStatus;
use oakallow_proxy::config::Config;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::backend::Backend;
use crate::support::pki;
use crate::support::policy::{AGENT, AUDIENCE, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::config_text;
use crate::support::tool::Tool;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, until};

/// A proxy in a process of its own, and the file that it follows.
struct Followed {
    backend: Backend,
    upstream: Upstream,
    proxy: Process,
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Followed {
    async fn start() -> Self {
        let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.yaml");
        std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &json!({}))).unwrap();
        let proxy = Process::start(&file);
        Self { backend, upstream, proxy, dir, file }
    }

    fn text(&self, upstream: &Upstream, more: &Value) -> String {
        config_text(self.dir.path(), &self.backend.url, &upstream.url, more)
    }

    /// Writes the file, and waits until the proxy has made up its mind about it.
    async fn write(&self, text: &str, result: &str) {
        let series = format!("oakallow_config_reloads_total{{result=\"{result}\"}}");
        let before = self.proxy.metric(&series).await;
        std::fs::write(&self.file, text).unwrap();
        until(result, async || (self.proxy.metric(&series).await > before).then_some(())).await;
    }

    async fn status(&self, tool: &str) -> u16 {
        self.proxy.call(tool).send().await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn a_held_call_goes_on_with_the_route_that_it_began_with_and_new_ones_go_by_the_new_file() {
    let followed = Followed::start().await;
    let other = Upstream::start().await;
    let held = tokio::spawn(followed.proxy.call("ask").send());
    until("a held call", async || (followed.proxy.metric("oakallow_held_calls").await == 1.0).then_some(()))
        .await;
    let more = json!({"limits": {"body_bytes_max": 8}, "redact": {"keys": ["id"]}});
    followed.write(&followed.text(&other, &json!({"redact": {"keys": ["id"]}})), "applied").await;
    assert_eq!(followed.status("read").await, 200);
    assert_eq!((followed.upstream.count(), other.count()), (0, 1));
    followed.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert_eq!((followed.upstream.count(), other.count()), (1, 1), "it goes where it was bound for");
    followed.write(&followed.text(&other, &more), "applied").await;
    assert_eq!(followed.status("read").await, 413);
    // What the second file redacts is not recorded any more.
    let requested = until("both calls", async || {
        let audit = followed.backend.audit();
        let requested: Vec<_> =
            audit.into_iter().filter(|e| e.event.kind == EventType::CallRequested).collect();
        (requested.len() == 2).then_some(requested)
    });
    let stored: Vec<bool> = requested
        .await
        .iter()
        .map(|e| e.event.data.parameters.as_ref().unwrap().to_string().contains("\"42\""))
        .collect();
    assert_eq!(stored, [true, false]);
}

#[tokio::test]
async fn no_call_waits_for_the_systems_authorities_and_all_routes_share_them() {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let (file, fifo) = (dir.path().join("proxy.yaml"), dir.path().join("system.pem"));
    // The client of the backend reads them too, at the start.
    std::fs::write(&fifo, pki::Authority::new().pem()).unwrap();
    std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &json!({}))).unwrap();
    // One thread: whatever waits on it keeps all calls waiting.
    let variables = [("SSL_CERT_FILE", fifo.to_str().unwrap()), ("TOKIO_WORKER_THREADS", "1")];
    let proxy = Process::start_in(&file, &variables);
    std::fs::remove_file(&fifo).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let route = |name: &str, upstream: &str| json!({"name": name, "kind": "http", "path": format!("/{name}/{{tool}}"), "audience": AUDIENCE, "upstream": upstream});
    let routes: Vec<Value> = [("tools", upstream.url.as_str())]
        .into_iter()
        .chain(["a", "b", "c"].map(|name| (name, "https://tools.test")))
        .map(|(name, upstream)| route(name, upstream))
        .collect();
    std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &json!({"routes": routes})))
        .unwrap();
    // Opens when the proxy reads.
    let opened = tokio::task::spawn_blocking(move || std::fs::File::create(fifo).unwrap());
    let mut opened = opened.await.unwrap();
    assert_eq!(proxy.call("read").send().await.unwrap().status(), 200);
    std::io::Write::write_all(&mut opened, pki::Authority::new().pem().as_bytes()).unwrap();
    drop(opened);
    // A second read would wait for ever.
    let applied = "oakallow_config_reloads_total{result=\"applied\"}";
    until("the new file", async || (proxy.metric(applied).await == 1.0).then_some(())).await;
}

#[tokio::test]
async fn the_metrics_of_a_way_end_with_it() {
    let followed = Followed::start().await;
    let (first, second) = (Tool::start("a").await, Tool::start("b").await);
    let route = |name: &str, tools: &[&Tool]| {
        let endpoints: Vec<&str> = tools.iter().map(|tool| tool.at.as_str()).collect();
        json!({"name": name, "kind": "http", "path": format!("/{name}/{{tool}}"), "audience": AUDIENCE, "upstream": "http://tools.test", "endpoints": endpoints})
    };
    let with = |routes: Value| followed.text(&followed.upstream, &json!({"routes": routes}));
    let ways = async || {
        let page = reqwest::get(format!("http://{}/metrics", followed.proxy.ops)).await.unwrap();
        let page = page.text().await.unwrap();
        let names =
            ["endpoint_up", "connect_failures_total", "lookup_failures_total", "reload_failures_total"];
        let series = names.map(|name| format!("oakallow_upstream_{name}{{"));
        let is_way = |line: &&str| series.iter().any(|series| line.starts_with(series));
        page.lines().filter(is_way).map(str::to_owned).collect::<Vec<_>>()
    };
    followed
        .write(&with(json!([route("tools", &[&first, &second]), route("gone", &[&first])])), "applied")
        .await;
    assert!(ways().await.iter().any(|line| line.contains("route=\"gone\"")));
    followed.write(&with(json!([route("tools", &[&second])])), "applied").await;
    let left = ways().await;
    assert!(
        left.iter().all(|line| line.contains("route=\"tools\"") && !line.contains(&first.at)),
        "{left:#?}"
    );
    let up = format!("oakallow_upstream_endpoint_up{{endpoint=\"{}\",route=\"tools\"}} 1", second.at);
    assert!(left.contains(&up), "{left:#?}");
    // What stays goes on counting.
    drop(second);
    until("a failure", async || {
        followed.status("read").await;
        ways()
            .await
            .iter()
            .any(|line| line.contains("reason=\"refused\"") && !line.ends_with(" 0"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_held_call_keeps_the_endpoint_and_the_credential_that_it_began_with() {
    let followed = Followed::start().await;
    let (first, second) = (Tool::start("a").await, Tool::start("b").await);
    let secret = followed.dir.path().join("secret");
    std::fs::write(&secret, "s3cret").unwrap();
    let to = |tool: &Tool, header: &str, prefix: &str| {
        let route = json!({
            "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": AUDIENCE,
            "upstream": "http://127.0.0.1:1", "endpoints": [tool.at],
            "inject": {"header": header, "prefix": prefix, "file": secret},
        });
        followed.text(&followed.upstream, &json!({"routes": [route]}))
    };
    followed.write(&to(&first, "authorization", "Bearer "), "applied").await;
    let held = tokio::spawn(followed.proxy.call("ask").send());
    until("a held call", async || (followed.proxy.metric("oakallow_held_calls").await == 1.0).then_some(()))
        .await;
    followed.write(&to(&second, "x-tools-key", "v2 "), "applied").await;
    assert_eq!(followed.status("read").await, 200);
    let came = second.came().pop().unwrap();
    assert_eq!(came.headers["x-tools-key"], "v2 s3cret");
    assert!(!came.headers.contains_key("authorization"), "{:?}", came.headers);
    assert_eq!(first.came().len(), 0);
    followed.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    let came = first.came().pop().unwrap();
    assert_eq!(came.headers["authorization"], "Bearer s3cret");
    assert!(!came.headers.contains_key("x-tools-key"), "{:?}", came.headers);
    assert_eq!((first.came().len(), second.came().len()), (1, 1));
    // Less than before is a change as well: the next call has no credential at all.
    let bare = json!({"routes": [{
        "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": AUDIENCE,
        "upstream": "http://127.0.0.1:1", "endpoints": [second.at],
    }]});
    followed.write(&followed.text(&followed.upstream, &bare), "applied").await;
    assert_eq!(followed.status("read").await, 200);
    let came = second.came().pop().unwrap();
    assert!(!came.headers.contains_key("x-tools-key") && !came.headers.contains_key("authorization"));
}

#[tokio::test]
async fn limits_change_without_a_restart() {
    let followed = Followed::start().await;
    let limits = |limits: Value| followed.text(&followed.upstream, &json!({"limits": limits}));
    followed.write(&limits(json!({"holds_max": 0})), "applied").await;
    assert_eq!(followed.status("ask").await, 429);
    followed.write(&limits(json!({"spool_events_max": 0})), "applied").await;
    assert_eq!(followed.status("read").await, 503);
    followed.write(&limits(json!({"connections_max": 0})), "applied").await;
    assert_eq!(followed.status("read").await, 503);
    followed.write(&limits(json!({})), "applied").await;
    assert_eq!(followed.status("read").await, 200);
    let stale = followed.text(&followed.upstream, &json!({"staleness": {"medium_s": 0}}));
    followed.write(&stale, "applied").await;
    until("a policy that is too old", async || (followed.status("read").await == 503).then_some(())).await;
}

#[tokio::test]
async fn a_file_that_is_not_accepted_changes_nothing_and_says_where_it_is_wrong() {
    let followed = Followed::start().await;
    let good = followed.text(&followed.upstream, &json!({}));
    let wrong = good.replacen("\"body_bytes_max\"", "\"body_byte_max\"", 1);
    let (line, text) = wrong.lines().enumerate().find(|(_, line)| line.contains("body_byte_max")).unwrap();
    let column = text.find("\"body_byte_max\"").unwrap();
    followed.write(&wrong, "refused").await;
    assert_eq!(followed.proxy.metric("oakallow_config_refused").await, 1.0);
    let place = format!("proxy.yaml:{}:{}: ", line + 1, column + 1);
    let log = followed.proxy.log();
    let said = log.iter().find(|line| line.contains("is not accepted")).unwrap();
    assert!(said.contains(&place) && said.contains("body_byte_max"), "{place} {said}");
    assert_eq!(followed.status("read").await, 200);
    // A file that is gone is no configuration either.
    std::fs::remove_file(&followed.file).unwrap();
    let refused = "oakallow_config_reloads_total{result=\"refused\"}";
    until("a missing file", async || (followed.proxy.metric(refused).await == 2.0).then_some(())).await;
    assert_eq!(followed.status("read").await, 200);
    followed.write(&good, "unchanged").await;
    assert_eq!(followed.proxy.metric("oakallow_config_refused").await, 0.0);
}

#[tokio::test]
async fn a_hangup_reloads_at_once_and_drops_nothing() {
    let followed = Followed::start().await;
    let held = tokio::spawn(followed.proxy.call("ask").send());
    until("a held call", async || (followed.proxy.metric("oakallow_held_calls").await == 1.0).then_some(()))
        .await;
    followed.proxy.signal("HUP");
    let unchanged = "oakallow_config_reloads_total{result=\"unchanged\"}";
    until("a reload", async || (followed.proxy.metric(unchanged).await >= 1.0).then_some(())).await;
    followed.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
}

#[test]
fn what_takes_a_restart_is_refused_by_a_reload_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let text = |more: Value| config_text(dir.path(), "http://127.0.0.1:1", "http://127.0.0.1:2", &more);
    let running = Config::parse("proxy.yaml", &text(json!({}))).unwrap();
    for (key, more) in [
        ("listen", json!({"listen": {"data": "127.0.0.1:1"}})),
        ("state_dir", json!({"state_dir": "/elsewhere"})),
        ("name", json!({"name": "other"})),
        ("url", json!({"backend": {"url": "http://127.0.0.1:3"}})),
        ("durability", json!({"durability": "power"})),
    ] {
        let text = text(more);
        let problem = running.successor("proxy.yaml", &text).unwrap_err();
        assert!(problem.message.starts_with(&format!("`{key}` ")), "{problem}");
        assert!(problem.message.contains("restart"), "{problem}");
        let (line, column) = problem.at.unwrap();
        assert!(text.lines().nth(line - 1).unwrap()[column - 1..].starts_with(key), "{problem}");
    }
    let more = json!({"limits": {"holds_max": 1}, "staleness": {"low_s": 1}, "redact": {"keys": ["a"]}, "hold": {"budget_s": 1}});
    assert_eq!(running.successor("proxy.yaml", &text(more)).unwrap().limits.holds_max, 1);
}

#[tokio::test]
async fn a_connection_keeps_the_number_of_streams_that_its_client_was_told() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let followed = Followed::start().await;
    let url = format!("http://{}/tools/ask", followed.proxy.data);
    let client =
        || Client::builder().timeout(PATIENCE).no_proxy().http2_prior_knowledge().build().expect("a client");
    let call = |over: &Client, number: usize| {
        over.post(&url).header("x-api-key", AGENT).json(&json!({"id": number.to_string()})).send()
    };
    let held = async |count: f64| {
        until("held calls", async || {
            (followed.proxy.metric("oakallow_held_calls").await == count).then_some(())
        })
        .await;
    };
    let early = client();
    let mut waiting: JoinSet<_> = (0..12).map(|number| call(&early, number)).collect();
    held(12.0).await;
    let fewer = json!({"limits": {"streams_per_connection_max": 2}});
    followed.write(&followed.text(&followed.upstream, &fewer), "applied").await;
    waiting.spawn(call(&early, 12));
    held(13.0).await;
    assert_eq!(followed.proxy.metric("oakallow_connections_cut_total").await, 0.0);
    followed.backend.approve_all();
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    // Who connects now is told of the new number: the third call waits in the client.
    let late = client();
    let mut waiting: JoinSet<_> = (20..23).map(|number| call(&late, number)).collect();
    held(2.0).await;
    until("all answers", async || {
        followed.backend.approve_all();
        while let Some(answer) = waiting.try_join_next() {
            assert_eq!(answer.unwrap().unwrap().status(), 200);
        }
        waiting.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_that_loosens_something_says_what() {
    let followed = Followed::start().await;
    let told = || -> Vec<String> {
        let looser = |line: &String| line.contains("WARN") && line.contains("looser than the one before");
        followed.proxy.log().into_iter().filter(looser).collect()
    };
    let strict = json!({"limits": {"body_bytes_max": 8, "holds_max": 4}, "redact": {"keys": ["iban"]}});
    followed.write(&followed.text(&followed.upstream, &strict), "applied").await;
    let loose = json!({"limits": {"body_bytes_max": 8, "holds_max": 5}});
    followed.write(&followed.text(&followed.upstream, &loose), "applied").await;
    let told = until("both lines", async || (told().len() >= 2).then(&told)).await;
    let has = |line: &str, what: &str| line.contains(what);
    // The stricter one was nothing to tell of.
    assert!(
        matches!(&told[..], [limit, hidden]
            if has(limit, "`limits.holds_max` is 5 and was 4") && has(hidden, "`redact.keys` has `iban` no more")),
        "{told:?}"
    );
}

#[test]
fn a_proxy_that_callers_reach_in_the_clear_says_so_before_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    // An address that no machine has (RFC 5737), and no join token: it ends before it would listen.
    let listen = json!({"data": "192.0.2.1:8080", "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"});
    let text =
        config_text(dir.path(), "http://127.0.0.1:1", "http://127.0.0.1:1", &json!({"listen": listen}));
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oakallow-proxy"));
    let output = command.arg("--config").arg(&file).env("NO_COLOR", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("WARN") && said.contains("`192.0.2.1:8080` can be reached from elsewhere"),
        "{said}"
    );
}
