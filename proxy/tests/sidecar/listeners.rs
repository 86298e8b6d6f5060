//! Listeners: several of them, Unix sockets, TLS with HTTP/2, certificates of clients, and new certificates without
//! a restart.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use oakallow_policy::wire::ApprovalStatus;
use reqwest::{Client, Response, Version};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::issuer::{AUD, ISS, Signer};
use crate::support::pki::{Authority, Issued};
use crate::support::policy::{ACME, AGENT};
use crate::support::sidecar::Sidecar;
use crate::support::until;

/// A proxy with one listener over TLS.
struct World {
    authority: Authority,
    dir: TempDir,
    sidecar: Sidecar,
}

fn listen(data: &Value) -> Value {
    json!({"listen": {"data": data, "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"}})
}

impl World {
    /// With more members of the listener, and of its `tls`.
    async fn start(listener: Value, tls: Value) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        let (certificate, key) = authority.server().write(dir.path());
        std::fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
        let mut whole = json!({"address": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}});
        whole.as_object_mut().unwrap().extend(listener.as_object().unwrap().clone());
        whole["tls"].as_object_mut().unwrap().extend(tls.as_object().unwrap().clone());
        if whole["tls"].get("client_certificate").is_some() {
            whole["tls"]["client_ca"] = json!(dir.path().join("ca.crt"));
        }
        let sidecar = Sidecar::with(listen(&json!([whole]))).await;
        Self { authority, dir, sidecar }
    }

    async fn read(&self, client: &Client, key: Option<&str>) -> reqwest::Result<Response> {
        let url = format!("https://localhost:{}/tools/read", self.sidecar.proxy.data.port());
        let call = client.post(url).json(&json!({"id": "42"}));
        key.iter().fold(call, |call, key| call.header("x-api-key", *key)).send().await
    }

    async fn status(&self, own: Option<&Issued>, key: Option<&str>) -> Option<u16> {
        let client = self.authority.trusted(own);
        self.read(&client, key).await.ok().map(|answer| answer.status().as_u16())
    }
}

#[tokio::test]
async fn tls_speaks_http_2_where_the_client_does() {
    let world = World::start(json!({}), json!({})).await;
    let answer = world.read(&world.authority.trusted(None), Some(AGENT)).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    let old = world.authority.builder(None).http1_only().build().unwrap();
    let answer = world.read(&old, Some(AGENT)).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
    assert!(world.read(&Authority::new().trusted(None), Some(AGENT)).await.is_err(), "another authority");
}

#[tokio::test]
async fn limits_hold_over_http_2_as_well() {
    let world = World::start(json!({}), json!({})).await;
    let client = world.authority.trusted(None);
    let url = format!("https://localhost:{}/tools/read", world.sidecar.proxy.data.port());
    let large =
        client.post(&url).header("x-api-key", AGENT).body("a".repeat(200 * 1024)).send().await.unwrap();
    assert_eq!((large.status().as_u16(), large.version()), (413, Version::HTTP_2));
    let many = (0..120).fold(client.post(&url).header("x-api-key", AGENT), |call, n| {
        call.header(format!("x-field-{n}"), "1")
    });
    assert_eq!(many.json(&json!({"id": "42"})).send().await.unwrap().status(), 400);
    assert_eq!(world.sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn what_is_not_tls_gets_nothing() {
    let world = World::start(json!({}), json!({})).await;
    let answer = crate::support::raw::exchange(
        world.sidecar.proxy.data,
        format!(
            "POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .as_bytes(),
    )
    .await;
    assert!(!answer.contains("HTTP/1.1"), "{answer:?}");
    assert_eq!(world.sidecar.upstream.count(), 0);
    assert_eq!(world.sidecar.metric("oakallow_tls_handshake_failures_total").await, 1.0);
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_gives_its_place_back() {
    let world = World::start(json!({}), json!({})).await;
    let mut idle = tokio::net::TcpStream::connect(world.sidecar.proxy.data).await.unwrap();
    // The first bytes of a record, and no more.
    idle.write_all(&[22, 3, 1]).await.unwrap();
    let end = tokio::time::timeout(crate::support::PATIENCE, idle.read(&mut [0; 16])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "it stays open");
    assert_eq!(world.sidecar.metric("oakallow_connections").await, 0.0);
}

#[tokio::test]
async fn a_certificate_says_who_calls_by_its_alternative_name() {
    let listener = json!({"identities": ["certificates"]});
    let world =
        World::start(listener, json!({"client_certificate": "required", "client_tenant": "acme"})).await;
    let ours = &world.authority;
    for (own, principal) in [
        (ours.client(&["spiffe://corp/ns/ops/sa/bot"], &["bot.corp"]), "cert:spiffe://corp/ns/ops/sa/bot"),
        (ours.client(&[], &["Bot.corp"]), "cert:bot.corp"),
    ] {
        assert_eq!(world.status(Some(&own), None).await, Some(200), "{principal}");
        let theirs = async || {
            let events = world.sidecar.backend.audit();
            let event = events.into_iter().find(|e| e.event.data.principal.as_deref() == Some(principal))?;
            Some(event.event.data.tenant)
        };
        assert_eq!(until("the event", theirs).await.as_deref(), Some("acme"));
    }
}

#[tokio::test]
async fn a_certificate_that_names_nobody_or_several_is_nobody() {
    let world =
        World::start(json!({"identities": ["certificates"]}), json!({"client_certificate": "required"}))
            .await;
    let ours = &world.authority;
    for (what, own) in [
        ("a common name", ours.client(&[], &[])),
        ("a URI without a scheme", ours.client(&["bot.corp"], &["bot.corp"])),
        ("two URIs", ours.client(&["spiffe://corp/a", "spiffe://corp/b"], &[])),
        ("two hosts", ours.client(&[], &["a.corp", "b.corp"])),
        ("a wildcard", ours.client(&[], &["*.corp"])),
    ] {
        assert_eq!(world.status(Some(&own), None).await, Some(401), "{what}");
    }
    assert_eq!(world.sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn certificates_of_others_do_not_connect() {
    let world =
        World::start(json!({"identities": ["certificates"]}), json!({"client_certificate": "required"}))
            .await;
    let other = Authority::new();
    for own in [None, Some(other.client(&["spiffe://corp/bot"], &[])), Some(world.authority.server())] {
        assert_eq!(world.status(own.as_ref(), None).await, None);
    }
    assert_eq!(world.sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_certificate_beside_a_key_is_one_credential_too_many() {
    let listener = json!({"identities": ["keys", "certificates"]});
    let world = World::start(listener, json!({"client_certificate": "optional"})).await;
    let own = world.authority.client(&["spiffe://corp/bot"], &[]);
    assert_eq!(world.status(Some(&own), None).await, Some(200));
    assert_eq!(world.status(None, Some(AGENT)).await, Some(200));
    assert_eq!(world.status(Some(&own), Some(AGENT)).await, Some(401));
    assert_eq!(world.status(None, None).await, Some(401));
}

#[tokio::test]
async fn a_certificate_may_be_needed_beside_a_key_without_saying_who_calls() {
    let world =
        World::start(json!({"identities": ["keys"]}), json!({"client_certificate": "required"})).await;
    let own = world.authority.client(&["spiffe://corp/bot"], &[]);
    assert_eq!(world.status(Some(&own), Some(AGENT)).await, Some(200));
    assert_eq!(world.status(Some(&own), None).await, Some(401));
    assert_eq!(world.status(None, Some(AGENT)).await, None);
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_while_a_call_is_held() {
    let world = World::start(json!({}), json!({})).await;
    let client = world.authority.trusted(None);
    let url = format!("https://localhost:{}/tools/ask", world.sidecar.proxy.data.port());
    let held = tokio::spawn(client.post(url).header("x-api-key", AGENT).json(&json!({"id": "42"})).send());
    let sidecar = &world.sidecar;
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    // Half of a pair, then nonsense: what runs stays.
    let next = Authority::new();
    let issued = next.server();
    std::fs::write(world.dir.path().join("tls.crt"), &issued.certificate).unwrap();
    let refused = async || (sidecar.metric("oakallow_certificate_reloads_total").await == 1.0).then_some(());
    until("a refused pair", refused).await;
    assert_eq!(world.status(None, Some(AGENT)).await, Some(200));
    let _ = issued.write(world.dir.path());
    until("the new certificate", async || {
        world.read(&next.trusted(None), Some(AGENT)).await.is_ok().then_some(())
    })
    .await;
    assert_eq!(world.status(None, Some(AGENT)).await, None, "the old authority");
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn an_authority_that_is_removed_ends_its_callers_on_open_connections_too() {
    let world =
        World::start(json!({"identities": ["certificates"]}), json!({"client_certificate": "required"}))
            .await;
    let client = world.authority.trusted(Some(&world.authority.client(&["spiffe://corp/bot"], &[])));
    assert_eq!(world.read(&client, None).await.unwrap().status(), 200);
    std::fs::write(world.dir.path().join("ca.crt"), Authority::new().pem()).unwrap();
    until("the end of the authority", async || {
        (world.read(&client, None).await.unwrap().status() == 401).then_some(())
    })
    .await;
    // Beside another one it is believed again, on the same connection.
    let both = format!("{}{}", Authority::new().pem(), world.authority.pem());
    std::fs::write(world.dir.path().join("ca.crt"), both).unwrap();
    until("the authority again", async || {
        (world.read(&client, None).await.unwrap().status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_listener_knows_callers_in_its_own_way() {
    let (dir, signer) = (tempfile::tempdir().unwrap(), Signer::ed25519());
    let keys = dir.path().join("jwks.json");
    std::fs::write(&keys, json!({"keys": [signer.jwk("one")]}).to_string()).unwrap();
    let socket = dir.path().join("agent.sock");
    let mut more = listen(&json!([
        {"address": "127.0.0.1:0"},
        {"address": "127.0.0.1:0", "identities": ["corp"]},
        {"address": format!("unix:{}", socket.display()), "identities": ["keys"], "mode": "0660"},
    ]));
    more["issuers"] = json!([{"name": "corp", "issuer": ISS, "audience": AUD, "jwks_file": keys}]);
    let sidecar = Sidecar::with(more).await;
    let [keyed, tokened, local] = &sidecar.proxy.listeners[..] else { panic!("three listeners") };
    let call = async |at: &str, client: &Client, credential: &str| {
        let call = client.post(format!("http://{at}/tools/read")).json(&json!({"id": "42"}));
        call.bearer_auth(credential).send().await.unwrap().status().as_u16()
    };
    let plain = crate::support::sidecar::client();
    let unix = Client::builder().unix_socket(socket.as_path()).build().unwrap();
    let token = signer.good("one", "grace");
    let (keyed, tokened) = (keyed.at.to_string(), tokened.at.to_string());
    until("the keys", async || (call(&tokened, &plain, &token).await == 200).then_some(())).await;
    assert_eq!(call(&tokened, &plain, AGENT).await, 401);
    assert_eq!(call(&keyed, &plain, AGENT).await, 200);
    assert_eq!(call(&keyed, &plain, &token).await, 401);
    assert_eq!(call("localhost", &unix, AGENT).await, 200);
    assert_eq!(call("localhost", &unix, &token).await, 401);
    let two = async |second: &str| {
        let call = plain.post(format!("http://{keyed}/tools/read")).json(&json!({"id": "42"}));
        call.bearer_auth(AGENT).bearer_auth(second).send().await.unwrap().status().as_u16()
    };
    assert_eq!((two(AGENT).await, two(ACME).await, two("oak_live_nobody").await), (200, 401, 401));
    // Beside a key, what looks like a token for somebody else may pass; one of our issuer is ours.
    let beside = async |bearer: &str| {
        let call = plain.post(format!("http://{keyed}/tools/read")).json(&json!({"id": "42"}));
        call.header("x-api-key", AGENT).bearer_auth(bearer).send().await.unwrap().status().as_u16()
    };
    assert_eq!((beside("theirs").await, beside(&token).await), (200, 401));
    assert!(local.at.to_string().starts_with("unix:/"));
    assert_eq!(mode(&socket), 0o660);
    sidecar.proxy.shutdown().await;
    until("the end of the socket", async || (!socket.exists()).then_some(())).await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_socket_is_its_owners_and_one_that_was_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "left behind");
    let data = json!([{"address": format!("unix:{}", socket.display())}]);
    let sidecar = Sidecar::with(listen(&data)).await;
    assert_eq!(mode(&socket), 0o600);
    let client = Client::builder().unix_socket(socket.as_path()).build().unwrap();
    let call =
        client.post("http://localhost/tools/read").header("x-api-key", AGENT).json(&json!({"id": "42"}));
    assert_eq!(call.send().await.unwrap().status(), 200);
    drop(sidecar);
}

#[tokio::test]
async fn many_connections_at_one_listener_leave_places_at_another() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let unix = format!("unix:{}", socket.display());
    let mut config = listen(&json!([{"address": "127.0.0.1:0"}, {"address": unix}]));
    config["limits"] = json!({"connections_max": 8});
    let sidecar = Sidecar::with(config).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tokio::net::TcpStream::connect(sidecar.proxy.data).await.unwrap());
    }
    until("more than may be", async || {
        (sidecar.metric("oakallow_connections_refused_total").await >= 64.0).then_some(())
    })
    .await;
    assert_eq!(sidecar.call("read").send().await.map_or(503, |answer| answer.status().as_u16()), 503);
    let client = Client::builder().unix_socket(socket.as_path()).build().unwrap();
    let call =
        client.post("http://localhost/tools/read").header("x-api-key", AGENT).json(&json!({"id": "42"}));
    assert_eq!(call.send().await.unwrap().status(), 200);
    drop(client);
    // What one does not need, another may use: 8, less the 2 of the socket's own.
    drop(silent);
    until("no connection", async || (sidecar.metric("oakallow_connections").await == 0.0).then_some(()))
        .await;
    let refused = async || sidecar.metric("oakallow_connections_refused_total").await;
    let before = refused().await;
    let mut open = Vec::new();
    for n in 1..=6 {
        open.push(tokio::net::TcpStream::connect(sidecar.proxy.data).await.unwrap());
        let all = async || (sidecar.metric("oakallow_connections").await == f64::from(n)).then_some(());
        until("one more", all).await;
    }
    assert_eq!(refused().await, before);
}
