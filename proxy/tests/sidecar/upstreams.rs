//! The ways to a tool server: TLS, HTTP/2, Unix sockets, several endpoints, its own credential.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{StatusCode, Version};
use oakallow_policy::audit::EventType;
use oakallow_proxy::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::policy::AUDIENCE;
use crate::support::sidecar::{Sidecar, config_text};
use crate::support::tool::{Authority, Tool};
use crate::support::until;

/// The two routes to a tool server, with these members.
fn routes(upstream: &str, more: &Value) -> Value {
    let route = |name: &str, kind: &str, path: &str| {
        let mut route =
            json!({"name": name, "kind": kind, "path": path, "audience": AUDIENCE, "upstream": upstream});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route
    };
    json!({"routes": [route("http", "http", "/tools/{tool}"), route("mcp", "mcp", "/mcp")]})
}

async fn sidecar(upstream: &str, more: &Value) -> Sidecar {
    Sidecar::with(routes(upstream, more)).await
}

async fn status(sidecar: &Sidecar) -> u16 {
    sidecar.call("read").send().await.unwrap().status().as_u16()
}

/// Which tool server answers.
async fn at(sidecar: &Sidecar) -> String {
    let answer: Value = sidecar.call("read").send().await.unwrap().json().await.unwrap();
    answer["result"]["at"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
}

/// The last outcome that was recorded is that nothing was sent.
async fn not_forwarded(sidecar: &Sidecar) {
    until("an outcome", async || {
        let events = sidecar.backend.audit();
        events.iter().any(|e| e.event.kind == EventType::CallNotForwarded).then_some(())
    })
    .await;
    let events = sidecar.backend.audit();
    assert!(!events.iter().any(|e| e.event.kind == EventType::CallUnknown));
}

#[tokio::test]
async fn over_tls_the_protocol_is_negotiated_and_the_certificate_verified() {
    let dir = tempfile::tempdir().unwrap();
    let tool = Tool::between_authorities("a", dir.path()).await;
    let tls = |ca: &str, name: &str| {
        let tls = json!({"ca": dir.path().join(ca), "server_name": name});
        json!({"endpoints": [tool.at], "upstream_tls": tls})
    };
    for (protocol, version) in
        [("auto", Version::HTTP_2), ("http1", Version::HTTP_11), ("http2", Version::HTTP_2)]
    {
        let mut way = tls("ca.pem", "tools.test");
        way["protocol"] = json!(protocol);
        let sidecar = sidecar("https://tools.test", &way).await;
        assert_eq!(status(&sidecar).await, 200, "{protocol}");
        let came = tool.came().pop().unwrap();
        assert_eq!((came.version, came.host.as_str()), (version, "tools.test"), "{protocol}");
        assert!(came.headers.contains_key("x-oakallow-token"));
    }
    let before = tool.came().len();
    for (ca, name) in [("other.pem", "tools.test"), ("ca.pem", "another.test")] {
        let sidecar = sidecar("https://tools.test", &tls(ca, name)).await;
        assert_eq!(status(&sidecar).await, 502, "{ca} {name}");
        not_forwarded(&sidecar).await;
    }
    assert_eq!(tool.came().len(), before);
}

#[tokio::test]
async fn a_tool_server_may_ask_for_a_certificate_and_a_changed_one_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    ours.write(&dir.path().join("ca.pem"));
    ours.issue(dir.path(), "tools.test", "server");
    other.issue(dir.path(), "proxy.test", "client");
    let tool = Tool::secured("a", ours.server(dir.path(), "server", true)).await;
    let file = |name: &str| dir.path().join(name);
    let tls = json!({"ca": file("ca.pem"), "certificate": file("client.crt"), "key": file("client.key")});
    let way = json!({"endpoints": [tool.at], "upstream_tls": tls, "protocol": "http1"});
    let sidecar = sidecar("https://tools.test", &way).await;
    // A certificate of another authority: the handshake ends before or after the client takes it for done.
    assert_eq!(status(&sidecar).await, 502);
    assert!(tool.came().is_empty());
    // A file that cannot be used changes nothing.
    std::fs::write(file("client.crt"), "nothing").unwrap();
    until("a refused file", async || {
        (sidecar.metric("oakallow_upstream_reload_failures_total").await >= 1.0).then_some(())
    })
    .await;
    ours.issue(dir.path(), "proxy.test", "client");
    until("a certificate that is accepted", async || (status(&sidecar).await == 200).then_some(())).await;
}

#[tokio::test]
async fn http2_is_spoken_in_the_clear_with_prior_knowledge() {
    let tool = Tool::start("a").await;
    let sidecar = sidecar(&format!("http://{}", tool.at), &json!({"protocol": "http2"})).await;
    for _ in 0..3 {
        assert_eq!(status(&sidecar).await, 200);
    }
    assert!(tool.came().iter().all(|came| came.version == Version::HTTP_2 && came.host == tool.at));
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let tool = Tool::at_socket("a", &dir.path().join("tools.sock"));
    let sidecar = sidecar("http://tools.test/base", &json!({"endpoints": [tool.at]})).await;
    assert_eq!(at(&sidecar).await, "a");
    let came = tool.came().pop().unwrap();
    assert_eq!((came.host.as_str(), came.path.as_str()), ("tools.test", "/base/tools/read"));
}

#[tokio::test]
async fn calls_go_to_the_endpoints_that_are_well_and_find_the_others_when_they_are_back() {
    let (first, second) = (Tool::start("a").await, Tool::start("b").await);
    let way = json!({"endpoints": [first.at, second.at]});
    let sidecar = sidecar("http://tools.test", &way).await;
    let mut answering = [at(&sidecar).await, at(&sidecar).await];
    answering.sort_unstable();
    assert_eq!(answering, ["a", "b"], "in turn");
    let address = first.at.clone();
    drop(first);
    // Every one arrives: what was not sent may go elsewhere.
    for _ in 0..6 {
        let answer = sidecar.call("read").send().await.unwrap();
        // But for one that met a connection which was just being closed.
        if answer.status() != 200 {
            assert_eq!(answer.headers()["x-oakallow-outcome"], "unknown");
        }
    }
    until("an endpoint that is out", async || {
        let _ = status(&sidecar).await;
        (sidecar.metric("oakallow_upstream_endpoint_up").await == 3.0).then_some(())
    })
    .await;
    assert_eq!((at(&sidecar).await, at(&sidecar).await), ("b".to_owned(), "b".to_owned()));
    let _first = Tool::at("a", &address).await;
    until("the endpoint again", async || (at(&sidecar).await == "a").then_some(())).await;
}

#[tokio::test]
async fn when_no_endpoint_is_well_nothing_is_sent() {
    let (first, second) = (Tool::start("a").await, Tool::start("b").await);
    let check = json!({"path": "/well", "interval_s": 1, "unhealthy_after": 1, "healthy_after": 1});
    let way = json!({"endpoints": [first.at, second.at], "health_check": check});
    let sidecar = sidecar("http://tools.test", &way).await;
    assert_eq!(status(&sidecar).await, 200);
    first.is_well(StatusCode::SERVICE_UNAVAILABLE);
    second.is_well(StatusCode::SERVICE_UNAVAILABLE);
    until("all out", async || (sidecar.metric("oakallow_upstream_endpoint_up").await == 0.0).then_some(()))
        .await;
    let before = first.came().len() + second.came().len();
    let answer = sidecar.call("read").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.headers().contains_key("x-oakallow-outcome"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "upstream_unreachable");
    assert_eq!(first.came().len() + second.came().len(), before);
    not_forwarded(&sidecar).await;
    first.is_well(StatusCode::OK);
    until("one that is well", async || (status(&sidecar).await == 200).then_some(())).await;
}

#[tokio::test]
async fn a_session_stays_with_the_endpoint_that_began_it() {
    let (first, second) = (Tool::start("a").await, Tool::start("b").await);
    let sidecar = sidecar("http://tools.test", &json!({"endpoints": [first.at, second.at]})).await;
    let message = |method: &str| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}});
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let answer = sidecar.rpc(&message("initialize")).send().await.unwrap();
        let session = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let body: Value = answer.json().await.unwrap();
        sessions.push((session, body["result"]["at"].clone()));
    }
    assert_ne!(sessions[0].1, sessions[1].1, "begun in turn");
    let ping = async |session: &str| {
        sidecar.rpc(&message("ping")).header("mcp-session-id", session).send().await.unwrap()
    };
    for _ in 0..3 {
        for (session, begun_at) in &sessions {
            let answer: Value = ping(session).await.json().await.unwrap();
            assert_eq!(&answer["result"]["at"], begun_at);
        }
    }
    // The tool server hears its own id.
    assert_eq!(first.came().last().unwrap().headers["mcp-session-id"], "s1");
    let gone = sessions.iter().find(|(_, at)| at == "a").unwrap().0.clone();
    drop(first);
    // It has ended with its endpoint, and the client hears that it is to begin another.
    until("the end of the session", async || (ping(&gone).await.status() == 404).then_some(())).await;
    assert_eq!(
        second.came().iter().filter(|came| came.path == "/mcp").count(),
        4,
        "nothing of it went elsewhere"
    );
}

#[tokio::test]
async fn the_tool_servers_own_credential_is_put_in_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "first\n").unwrap();
    let tool = Tool::start("a").await;
    let inject = json!({"inject": {"header": "Authorization", "prefix": "Bearer ", "file": file}});
    let sidecar = sidecar(&format!("http://{}", tool.at), &inject).await;
    let own = sidecar.call("read").header("authorization", "Bearer of-the-agent");
    let answer = own.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!format!("{:?}", answer.headers()).contains("first"));
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    assert_eq!(sidecar.rpc(&ping).send().await.unwrap().status(), 200);
    for came in tool.came() {
        let values: Vec<_> = came.headers.get_all("authorization").iter().collect();
        assert_eq!(values, ["Bearer first"], "{}", came.path);
    }
    // An empty file is no rotation.
    std::fs::write(&file, "").unwrap();
    until("a refused file", async || {
        (sidecar.metric("oakallow_upstream_reload_failures_total").await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(status(&sidecar).await, 200);
    assert_eq!(tool.came().pop().unwrap().headers["authorization"], "Bearer first");
    std::fs::write(&file, "second").unwrap();
    until("the new one", async || {
        let _ = status(&sidecar).await;
        (tool.came().pop()?.headers["authorization"] == "Bearer second").then_some(())
    })
    .await;
    let recorded = format!("{:?}", sidecar.backend.audit());
    assert!(!recorded.contains("Bearer first") && !recorded.contains("Bearer second"));
}

#[tokio::test]
async fn a_health_check_does_not_read_an_answer_without_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (bytes, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (sent, closed) = (bytes.clone(), ended.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (sent, closed) = (sent.clone(), closed.clone());
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {
                    sent.fetch_add(4096, Ordering::SeqCst);
                }
                closed.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let check = json!({"path": "/well", "interval_s": 1, "unhealthy_after": 1, "healthy_after": 1});
    let sidecar = sidecar(&url, &json!({"health_check": check})).await;
    // Two routes.
    until("checks", async || (ended.load(Ordering::SeqCst) >= 6).then_some(())).await;
    assert_eq!(sidecar.metric("oakallow_upstream_endpoint_up").await, 2.0, "its status is what counts");
    // What the sockets on both sides keep is read by nobody.
    let each = bytes.load(Ordering::SeqCst) / ended.load(Ordering::SeqCst);
    assert!(each < 16 * 1024 * 1024, "{each}");
}

/// What reading a configuration with these routes says.
fn said(dir: &Path, upstream: &str, more: &Value) -> String {
    let text = config_text(dir, "http://127.0.0.1:1", upstream, &routes(upstream, more));
    match Config::parse("test.yaml", &text) {
        Ok(config) => {
            let shown = format!("{config:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
            "ok".to_owned()
        }
        Err(e) => e.to_string(),
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (one, other) = (Authority::new(), Authority::new());
    one.write(&path("ca.pem"));
    one.issue(dir.path(), "a.test", "a");
    other.issue(dir.path(), "b.test", "b");
    std::fs::write(path("secret"), "s3cret").unwrap();
    std::fs::write(path("empty"), " \n").unwrap();
    let (http, https, far) = ("http://127.0.0.1:9000", "https://tools.test", "http://tools.test");
    let tls = |tls: Value| json!({"upstream_tls": tls});
    let inject = |more: Value| {
        let mut inject = json!({"header": "X-API-Key", "file": path("secret")});
        inject.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"inject": inject})
    };
    let pair = |crt: &str, key: &str| tls(json!({"certificate": path(crt), "key": path(key)}));
    for (upstream, more, expected) in [
        (http, json!({}), "ok"),
        (https, json!({}), "ok"),
        ("http://[::1]:9000", json!({}), "ok"),
        (https, tls(json!({"ca": path("ca.pem")})), "ok"),
        (https, pair("a.crt", "a.key"), "ok"),
        (http, inject(json!({})), "ok"),
        (https, inject(json!({})), "ok"),
        (far, inject(json!({"allow_cleartext": true})), "ok"),
        ("ftp://a", json!({}), "an upstream is http://"),
        ("http://u:p@a", json!({}), "no user or password"),
        ("http://a/?x=1", json!({}), "no query"),
        ("http://127.0.0.1:99999", json!({}), "a port is 1 to 65535"),
        ("https://tools.test:/mcp", json!({}), "a port is 1 to 65535"),
        (http, tls(json!({})), "begins with https://"),
        (https, tls(json!({"server_name": ""})), "`server_name` is empty"),
        (https, tls(json!({"server_name": "a b"})), "no name of a server"),
        (https, tls(json!({"verify": false})), "unknown field"),
        (https, tls(json!({"ca": path("missing")})), "no certificates in PEM"),
        (https, tls(json!({"ca": path("empty")})), "no certificates in PEM"),
        (https, tls(json!({"certificate": path("a.crt")})), "`certificate` needs its `key`"),
        (https, tls(json!({"key": path("a.key")})), "`key` needs its `certificate`"),
        (https, pair("a.crt", "b.key"), "not the certificate of the key"),
        (https, pair("a.crt", "ca.pem"), "no private key in PEM"),
        (http, json!({"endpoints": []}), "`endpoints` is empty"),
        (http, json!({"endpoints": ["a:1", "a:1"]}), "stands twice"),
        (http, json!({"endpoints": ["unix:tools.sock"]}), "absolute"),
        (http, json!({"endpoints": ["http://a:1"]}), "host:port or unix:/path"),
        (http, json!({"protocol": "http3"}), "unknown variant"),
        (http, json!({"dns_refresh_s": 0}), "at least 1"),
        (http, json!({"health_check": {"path": "well"}}), "starts with a slash"),
        (http, json!({"health_check": {"path": "/well", "interval_s": 0}}), "at least 1"),
        (far, inject(json!({})), "in the clear"),
        (http, inject(json!({"file": path("empty")})), "the secret is empty"),
        (http, inject(json!({"file": path("missing")})), "No such file"),
        (http, inject(json!({"env": "OAKALLOW_X"})), "one of `file` and `env`"),
        (http, inject(json!({"file": null, "env": "OAKALLOW_NO_SUCH"})), "not set"),
        (http, inject(json!({"header": "Host"})), "does not go into this field"),
        (http, inject(json!({"header": "X-Oakallow-Token"})), "does not go into this field"),
        (http, inject(json!({"header": "Content-Type"})), "does not go into this field"),
        (http, inject(json!({"header": "a b"})), "not the name of a field"),
    ] {
        let said = said(dir.path(), upstream, &more);
        assert!(said.contains(expected) && !said.contains("s3cret"), "{upstream} {more}: {said}");
    }
}
