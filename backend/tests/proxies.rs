//! The proxy protocol: enrolment, bundles, the feed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use ed25519_dalek::SigningKey;
use futures_util::StreamExt as _;
use oakallow_policy::RuleSet;
use oakallow_policy::audit::{Chained, Event, Head};
use oakallow_policy::call::Call;
use oakallow_policy::wire::{
    Bundle, BundleScope, Enrolled, PublicKey, Purpose, Signed, StillCurrent, Tenancy,
};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Backend, Client};

/// An enrolled proxy.
struct Proxy {
    client: Client,
    id: String,
    bundle_key: PublicKey,
}

async fn join_token(admin: &Client, tenants: Option<&[&str]>) -> Value {
    let body = json!({"audiences": ["ops"], "tenants": tenants});
    admin.post("/v1/proxies/join-tokens", body).await.created()["join_token"].clone()
}

fn enrolment(join_token: &Value) -> Value {
    let key = PublicKey::of("proxy", &SigningKey::from_bytes(&[7; 32]));
    json!({"join_token": join_token, "name": "pod-1", "public_key": key.public_key, "version": "0.1.0"})
}

async fn enrolled(backend: &Backend, admin: &Client, tenants: Option<&[&str]>) -> Proxy {
    let token = join_token(admin, tenants).await;
    let answer = backend.anonymous().post("/v1/proxies/enroll", enrolment(&token)).await.created();
    let enrolled: Enrolled = serde_json::from_value(answer).unwrap();
    assert_eq!(enrolled.tenants.is_some(), tenants.is_some());
    Proxy {
        client: backend.client(enrolled.proxy_key.expose()),
        id: enrolled.proxy_id,
        bundle_key: enrolled.bundle_key,
    }
}

impl Proxy {
    async fn bundle(&self, tenant: Option<&str>) -> Bundle {
        let query = tenant.map(|t| format!("?tenant={t}")).unwrap_or_default();
        let path = format!("/v1/proxies/{}/bundle{query}", self.id);
        let signed: Signed = serde_json::from_value(self.client.get(&path).await.ok()).unwrap();
        signed.open(Purpose::Bundle, &self.bundle_key).unwrap()
    }

    async fn events(&self, last_event_id: Option<&str>) -> Events {
        let mut request = self.client.request(Method::GET, &format!("/v1/proxies/{}/events", self.id));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = response.bytes_stream().map(|part| part.map(|bytes| bytes.to_vec()).unwrap_or_default());
        Events { body: body.boxed(), buffer: String::new() }
    }
}

/// What a proxy hears.
struct Events {
    body: futures_util::stream::BoxStream<'static, Vec<u8>>,
    buffer: String,
}

#[derive(Debug)]
struct Message {
    event: String,
    id: String,
    data: Value,
}

impl Events {
    /// The next message; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((message, rest)) = self.buffer.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.buffer = rest;
                let field = |name: &str| {
                    let line = message.lines().find_map(|l| l.strip_prefix(&format!("{name}:")));
                    line.map(|l| l.trim().to_owned()).unwrap_or_default()
                };
                if field("event").is_empty() {
                    continue;
                }
                let data = serde_json::from_str(&field("data")).unwrap();
                return Some(Message { event: field("event"), id: field("id"), data });
            }
            let part =
                tokio::time::timeout(Duration::from_secs(20), self.body.next()).await.expect("no news");
            self.buffer.push_str(&String::from_utf8(part?).unwrap());
        }
    }

    /// The next message of that kind.
    async fn next_of(&mut self, event: &str) -> Message {
        loop {
            let message = self.next().await.expect("the stream ended");
            if message.event == event {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn a_join_token_is_good_once_and_for_an_hour() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let anyone = backend.anonymous();
    let token = join_token(&admin, None).await;
    let weak = json!({"join_token": token, "name": "p", "public_key": "AAAA", "version": "0"});
    anyone.post("/v1/proxies/enroll", weak).await.problem(422, "invalid_value");
    let attempts = (0..8).map(|_| anyone.post("/v1/proxies/enroll", enrolment(&token)));
    let answers = futures_util::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|a| a.status == 401).count(), 7);
    let late = join_token(&admin, None).await;
    backend.clock.advance_ms(3600 * 1000);
    anyone.post("/v1/proxies/enroll", enrolment(&late)).await.problem(401, "invalid_join_token");
}

#[tokio::test]
async fn a_bundle_is_signed_decides_as_the_backend_does_and_is_sent_once() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let acme_key = admin.standard(&["acme"]).await;
    let proxy = enrolled(&backend, &admin, None).await;
    let bundle = proxy.bundle(None).await;
    let BundleScope::Org { policy, keys, audience_keys } = bundle.scope else { panic!("not the org's") };
    assert_eq!(keys.len(), 1);
    assert!(matches!(&keys[0].tenancy, Tenancy::One(t) if t.as_str() == "acme"));
    assert!(!format!("{keys:?}").contains(acme_key.key.as_deref().unwrap()));
    assert_eq!(audience_keys.len(), 1);
    assert_eq!((audience_keys[0].audience.as_str(), audience_keys[0].current), ("ops", true));
    let BundleScope::Tenant { tenant, rules } = proxy.bundle(Some("acme")).await.scope else { panic!() };
    let set = RuleSet::compile(&policy, bundle.version)
        .unwrap()
        .with_tenant(&tenant, &rules, bundle.version)
        .unwrap();
    let call = Call {
        org: "demo",
        tenant: Some("acme"),
        principal: &keys[0].principal,
        audience: "ops",
        tool: "restart_service",
        resource: None,
        method: None,
    };
    let theirs = acme_key.post("/v1/permissions/check", json!({"tool_name": "restart_service"})).await.ok();
    assert_eq!(set.resolve(&call).unwrap().resolved_from().as_str(), theirs["resolved_from"]);
    assert_eq!(theirs["policy_version"], bundle.version);

    let path = format!("/v1/proxies/{}/bundle", proxy.id);
    let again =
        proxy.client.request(Method::GET, &path).header("if-none-match", format!("\"{}\"", bundle.version));
    let again = again.send().await.unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(again.headers()["etag"], format!("\"{}\"", bundle.version));
    admin.post("/v1/tenants", json!({"id": "third"})).await.created();
    assert!(proxy.bundle(None).await.version > bundle.version);
}

#[tokio::test]
async fn a_revoked_key_is_gone_from_the_bundle() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let key =
        admin.post("/v1/keys", json!({"name": "k", "tier": "standard", "tenancy": "org"})).await.created();
    let proxy = enrolled(&backend, &admin, None).await;
    let keys = |bundle: Bundle| match bundle.scope {
        BundleScope::Org { keys, .. } => keys.len(),
        BundleScope::Tenant { .. } => panic!("not the org's"),
    };
    assert_eq!(keys(proxy.bundle(None).await), 1);
    let mut events = proxy.events(None).await;
    events.next_of("current").await;
    admin.delete(&format!("/v1/keys/{}", key["id"].as_str().unwrap())).await.no_content();
    events.next_of("version").await;
    assert_eq!(keys(proxy.bundle(None).await), 0);
}

#[tokio::test]
async fn a_proxy_of_one_tenant_gets_nothing_of_the_others() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    admin.post("/v1/tools", json!({"name": "elsewhere", "audience": "billing"})).await.created();
    admin.put("/v1/kill-switches", json!({"scope": "tenant", "id": "globex"})).await.ok();
    for tenants in [&[][..], &["acme"], &["globex"], &["acme", "globex"]] {
        admin.standard(tenants).await;
    }
    let proxy = enrolled(&backend, &admin, Some(&["acme"])).await;
    let bundle = proxy.bundle(None).await;
    let text = serde_json::to_string(&bundle).unwrap();
    assert!(!text.contains("globex") && !text.contains("billing"), "{text}");
    let BundleScope::Org { keys, .. } = bundle.scope else { panic!() };
    // Org, acme, and the one that has both: each reaches acme here and nothing else.
    assert_eq!(keys.len(), 3, "{keys:?}");
    let path = format!("/v1/proxies/{}/bundle?tenant=globex", proxy.id);
    proxy.client.get(&path).await.problem(403, "tenant_not_allowed");

    let mut events = proxy.events(None).await;
    events.next_of("current").await;
    let rule = json!({"tenant_id": "globex", "tool_name": "x", "permission": "allowed"});
    let version = admin.post("/v1/rules", rule).await;
    assert_eq!(version.status, 201);
    assert_eq!(events.next_of("version").await.data["tenant"], Value::Null);
}

#[tokio::test]
async fn a_proxy_speaks_only_its_protocol_and_for_itself() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let proxy = enrolled(&backend, &admin, None).await;
    let other = enrolled(&backend, &admin, None).await;
    for path in ["bundle", "events"] {
        let path = format!("/v1/proxies/{}/{path}", other.id);
        proxy.client.get(&path).await.problem(403, "wrong_credential");
    }
    for path in ["/v1/tools", "/v1/keys", "/v1/audit", "/v1/proxies"] {
        proxy.client.get(path).await.problem(403, "wrong_credential");
    }
    proxy
        .client
        .post("/v1/permissions/check", json!({"tool_name": "x"}))
        .await
        .problem(403, "wrong_credential");
    admin.get(&format!("/v1/proxies/{}/bundle", proxy.id)).await.problem(403, "wrong_credential");
}

#[tokio::test]
async fn the_feed_begins_with_a_signed_current_and_repeats_it() {
    let backend = Backend::start_with(|c| c.current_interval = Duration::from_millis(50)).await;
    let admin = backend.org("demo").await;
    let proxy = enrolled(&backend, &admin, None).await;
    let mut events = proxy.events(None).await;
    let first = events.next().await.unwrap();
    assert_eq!(first.event, "current");
    let word = |message: &Message| -> StillCurrent {
        let signed: Signed = serde_json::from_value(message.data.clone()).unwrap();
        signed.open(Purpose::StillCurrent, &proxy.bundle_key).unwrap()
    };
    assert_eq!(word(&first).version, proxy.bundle(None).await.version);
    backend.clock.advance_ms(1_000);
    let mut later = word(&events.next_of("current").await);
    while later.at == word(&first).at {
        later = word(&events.next_of("current").await);
    }
    assert_eq!(later.at, word(&first).at + 1_000);
}

#[tokio::test]
async fn a_change_is_heard_and_a_feed_resumes_where_it_was() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let stranger = backend.org("other").await;
    let proxy = enrolled(&backend, &admin, None).await;
    let mut events = proxy.events(None).await;
    let start = events.next_of("current").await;
    let rule = |tool: &str| json!({"tenant_id": "acme", "tool_name": tool, "permission": "allowed"});
    stranger.post("/v1/tenants", json!({"id": "theirs"})).await.created();
    admin.post("/v1/rules", rule("a")).await.created();
    let heard = events.next().await.unwrap();
    assert_eq!((heard.event.as_str(), &heard.data["tenant"]), ("version", &json!("acme")));
    drop(events);
    admin.post("/v1/rules", rule("b")).await.created();
    admin.post("/v1/tenants", json!({"id": "c"})).await.created();

    let mut resumed = proxy.events(Some(&heard.id)).await;
    assert_eq!(resumed.next().await.unwrap().event, "current");
    let second = resumed.next().await.unwrap();
    let third = resumed.next().await.unwrap();
    let version = |m: &Message| m.data["version"].as_u64().unwrap();
    assert_eq!((version(&second), version(&third)), (version(&heard) + 1, version(&heard) + 2));
    assert_eq!((&second.data["tenant"], &third.data["tenant"]), (&json!("acme"), &Value::Null));
    let mut whole = proxy.events(Some(&start.id)).await;
    whole.next_of("current").await;
    assert_eq!(whole.next().await.unwrap().id, heard.id);
}

#[tokio::test]
async fn an_approvals_state_reaches_the_proxies_of_its_audience() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let proxy = enrolled(&backend, &admin, None).await;
    let foreign = enrolled(&backend, &admin, Some(&["acme"])).await;
    let mut events = proxy.events(None).await;
    let mut others = foreign.events(None).await;
    events.next_of("current").await;
    others.next_of("current").await;
    let globex = admin.standard(&["globex"]).await;
    let asked = json!({"tool_name": "restart_service", "parameters": {}, "reason": "it hangs"});
    let approval = globex.post("/v1/approvals", asked).await.created();
    let heard = events.next_of("approval").await;
    assert_eq!((&heard.data["id"], &heard.data["status"]), (&approval["id"], &json!("pending")));
    let path = |p: &Proxy| format!("/v1/proxies/{}/approvals", p.id);
    let ids = json!({"ids": [approval["id"]]});
    let states = proxy.client.post(&path(&proxy), ids.clone()).await.ok();
    assert_eq!(states["approvals"][0]["status"], "pending");
    let states = foreign.client.post(&path(&foreign), ids).await.ok();
    assert_eq!(states["approvals"], json!([]));
    // The other tenant's proxy hears of the next version, and of no approval before it.
    admin.post("/v1/tenants", json!({"id": "later"})).await.created();
    assert_eq!(others.next().await.unwrap().event, "version");
}

#[tokio::test]
async fn a_heartbeat_shows_in_the_fleet() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let proxy = enrolled(&backend, &admin, None).await;
    let beat = json!({"version": "0.2.0", "policy_version": 3, "spool_depth": 4, "held_calls": 5,
        "head": {"seq": 6, "hash": "0".repeat(64)}});
    proxy.client.post(&format!("/v1/proxies/{}/heartbeat", proxy.id), beat).await.no_content();
    let fleet = admin.get("/v1/proxies").await.ok();
    let shown = &fleet["data"][0];
    assert_eq!(
        (&shown["version"], &shown["held_calls"], &shown["head_seq"]),
        (&json!("0.2.0"), &json!(5), &json!(6))
    );
    assert!(shown["seen_at"].is_string(), "{fleet}");
}

#[tokio::test]
async fn a_removed_proxy_is_cut_off() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let proxy = enrolled(&backend, &admin, None).await;
    let mut events = proxy.events(None).await;
    events.next_of("current").await;
    admin.delete(&format!("/v1/proxies/{}", proxy.id)).await.no_content();
    while events.next().await.is_some() {}
    let path = format!("/v1/proxies/{}/bundle", proxy.id);
    proxy.client.get(&path).await.problem(401, "key_revoked");
}

#[tokio::test]
async fn a_shutdown_ends_streams_at_once() {
    let mut backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let proxy = enrolled(&backend, &admin, None).await;
    let mut events = proxy.events(None).await;
    events.next_of("current").await;
    tokio::time::timeout(Duration::from_secs(5), backend.stop())
        .await
        .expect("the shutdown hangs on a stream");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_tool_that_only_a_proxy_saw_becomes_a_draft() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let proxy = enrolled(&backend, &admin, None).await;
    let event: Event = serde_json::from_value(json!({
        "id": "evt_1", "type": "call.decided", "time": "2026-09-21T14:13:20.000Z", "txn": "txn_1",
        "data": {"principal": "bot", "audience": "ops", "tool": "rm_rf", "decision": {"permission":
            "requires_approval", "resolved_from": "fail_safe", "policy_version": 1, "unregistered": true}}}))
    .unwrap();
    let (chained, _, head) =
        Chained::append(&format!("proxy/{}", proxy.id), &Head::default(), event).unwrap();
    let head = Signed::seal(Purpose::Head, &head, "proxy", &SigningKey::from_bytes(&[7; 32])).unwrap();
    let batch = json!({"events": [chained], "head": head});
    proxy.client.post(&format!("/v1/proxies/{}/audit", proxy.id), batch.clone()).await.ok();
    proxy.client.post(&format!("/v1/proxies/{}/audit", proxy.id), batch).await.ok();
    let drafts = admin.get("/v1/tools?status=draft").await.ok();
    assert_eq!(drafts["data"].as_array().unwrap().len(), 1, "{drafts}");
    assert_eq!(
        (&drafts["data"][0]["name"], &drafts["data"][0]["audience"]),
        (&json!("rm_rf"), &json!("ops"))
    );
}
