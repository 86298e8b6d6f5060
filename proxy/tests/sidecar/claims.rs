//! What the claims of a token say: for which tenant and resource it is, who answers for its caller, and why one is
//! refused.

use serde_json::{Value, json};

use crate::support::issuer::{ISS, KeyServer, Signer, changed, claims, now_s};
use crate::support::sidecar::{Sidecar, client};
use crate::tokens::World;

#[tokio::test]
async fn a_token_for_the_resource_that_discovery_names_is_good_on_each_route() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk("one")]).await;
    let audience = ["https://tools.example/mcp", "https://tools.example/more"];
    let upstream = crate::support::upstream::Upstream::start().await;
    let route = |name: &str| json!({"name": name, "kind": "mcp", "path": format!("/{name}"), "audience": "tools", "upstream": upstream.url});
    let sidecar = Sidecar::with(json!({
        "listen": {
            "data": [{"address": "127.0.0.1:0", "identities": ["corp"], "url": "https://tools.example"}],
            "ops": "127.0.0.1:0", "admin": "127.0.0.1:0",
        },
        "issuers": [{"name": "corp", "issuer": ISS, "audience": audience, "jwks_url": format!("{}/jwks", server.url)}],
        "routes": [route("mcp"), route("more")],
    }))
    .await;
    let base = format!("http://{}", sidecar.proxy.data);
    let ping = |path: &str, audience: &str| {
        let mut claims = claims("grace");
        claims["aud"] = json!(audience);
        let token = signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims);
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        let call = client().post(format!("{base}{path}")).bearer_auth(token).json(&ping);
        call.header("accept", "application/json, text/event-stream").send()
    };
    for path in ["/mcp", "/more"] {
        let challenge = ping(path, "https://other.example").await.unwrap();
        assert_eq!(challenge.status(), 401);
        let challenge = challenge.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.ends_with(", error=\"invalid_token\""), "{challenge}");
        let bare = client().post(format!("{base}{path}")).json(&json!({})).send().await.unwrap();
        let bare = bare.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(bare.starts_with("Bearer ") && !bare.contains("error"), "{bare}");
        let at = challenge.split_once("resource_metadata=\"https://tools.example").unwrap().1;
        let described =
            client().get(format!("{base}{}", at.split_once('"').unwrap().0)).send().await.unwrap();
        let described: Value = described.json().await.unwrap();
        let resource = described["resource"].as_str().unwrap();
        assert_eq!(ping(path, resource).await.unwrap().status(), 200, "{resource}");
    }
    // Whoever got one for one of them cannot use it at the other.
    for (path, other) in [("/mcp", audience[1]), ("/more", audience[0])] {
        assert_eq!(ping(path, other).await.unwrap().status(), 401, "{path} {other}");
    }
    let refused = "oakallow_tokens_refused_total{issuer=\"corp\",reason=\"audience\"}";
    assert_eq!(sidecar.metric(refused).await, 4.0);
}

#[tokio::test]
async fn a_route_takes_tokens_for_the_audiences_that_it_names() {
    let (signer, upstream) = (Signer::p256(), crate::support::upstream::Upstream::start().await);
    let server = KeyServer::start(&[signer.jwk("one")]).await;
    let route = |name: &str, more: Value| {
        let mut route = json!({"name": name, "kind": "mcp", "path": format!("/{name}"), "audience": "tools", "upstream": upstream.url});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route
    };
    let sidecar = Sidecar::with(json!({
        "listen": {
            "data": [{"address": "127.0.0.1:0", "identities": ["corp"]}],
            "ops": "127.0.0.1:0", "admin": "127.0.0.1:0",
        },
        "issuers": [{"name": "corp", "issuer": ISS, "audience": ["bank", "shared", "desk"], "jwks_url": format!("{}/jwks", server.url)}],
        "routes": [
            route("bank", json!({"token_audience": "bank"})),
            route("desk", json!({"token_audience": ["desk", "bank"]})),
            route("rest", json!({})),
        ],
    }))
    .await;
    for (path, audience, status) in [
        ("bank", json!("bank"), 200),
        ("bank", json!(["other", "bank"]), 200),
        ("bank", json!("desk"), 401),
        ("bank", json!("shared"), 401),
        ("desk", json!("desk"), 200),
        ("desk", json!("bank"), 200),
        ("rest", json!("shared"), 200),
        ("rest", json!(["bank", "desk"]), 401),
    ] {
        let mut claims = claims("grace");
        claims["aud"] = audience.clone();
        let token = signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims);
        let call = client().post(format!("http://{}/{path}", sidecar.proxy.data)).bearer_auth(token);
        let call = call.header("accept", "application/json, text/event-stream");
        let answer = call.json(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path} {audience}");
    }
}

#[tokio::test]
async fn why_tokens_are_refused_is_counted_by_issuer_and_reason() {
    let world = World::start().await;
    let (good, signer) = (claims("grace"), &world.signer);
    let header = json!({"alg": "ES256", "kid": "one"});
    let with = |name: &str, value: Value| signer.token(&header, &changed(&good, name, value));
    for (issuer, reason, token) in [
        ("", "form", "e30.e30".to_owned()),
        ("", "issuer", with("iss", json!("https://other.example"))),
        ("corp", "audience", with("aud", json!("other"))),
        ("corp", "algorithm", signer.token(&json!({"alg": "ES384", "kid": "one"}), &good)),
        ("corp", "early", with("nbf", json!(now_s() + 60))),
        ("corp", "ended", with("exp", json!(now_s() - 60))),
        ("corp", "key", signer.good("two", "grace")),
        ("corp", "signature", Signer::p256().good("one", "grace")),
        ("corp", "principal", with("sub", json!(7))),
        ("corp", "tenant", with("tenant", json!(7))),
    ] {
        world.is_refused(reason, &token).await;
        let series = format!("oakallow_tokens_refused_total{{issuer=\"{issuer}\",reason=\"{reason}\"}}");
        assert_eq!(world.sidecar.metric(&series).await, 1.0, "{series}");
    }
    assert_eq!(world.sidecar.metric("oakallow_tokens_refused_total").await, 10.0);
    assert_eq!(world.read(&signer.good("one", "grace")).await.status(), 200);
    assert_eq!(world.sidecar.metric("oakallow_tokens_refused_total").await, 10.0);
}

#[tokio::test]
async fn a_token_selects_among_its_tenants_and_they_exist() {
    let world = World::start().await;
    let token = |tenant: Value| {
        let mut claims = claims("grace");
        claims["tenant"] = tenant;
        world.signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims)
    };
    for (claim, wanted, status) in [
        (json!("acme"), None, 200),
        (json!("acme"), Some("globex"), 403),
        (json!("initech"), None, 403),
        (json!("initech"), Some("initech"), 403),
        (json!(["acme", "globex"]), None, 403),
        (json!(["acme", "globex"]), Some("globex"), 200),
        (json!(["acme", "globex"]), Some("initech"), 403),
        (json!(["acme"]), None, 200),
        (json!(["acme"]), Some("globex"), 403),
        (json!([]), Some("acme"), 403),
    ] {
        let call = world.call("read", &token(claim.clone()));
        let call = wanted.iter().fold(call, |call, tenant| call.header("x-tenant-id", *tenant));
        assert_eq!(call.send().await.unwrap().status(), status, "{claim} {wanted:?}");
    }
}

#[tokio::test]
async fn without_a_tenant_a_token_is_for_the_org_alone() {
    let world = World::with(Signer::p256(), json!({}), json!(["corp"])).await;
    let token = world.signer.good("one", "grace");
    assert_eq!(world.read(&token).await.status(), 200);
    let call = world.call("read", &token).header("x-tenant-id", "acme");
    assert_eq!(call.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn who_answers_for_a_token_is_told_to_whom_decides() {
    for (issuer, claim, owner) in [
        // Nobody says that it is theirs.
        (json!({}), json!({"email": "grace@example.com"}), None),
        (json!({}), json!({"email": "grace@example.com", "email_verified": true}), Some("grace@example.com")),
        (json!({}), json!({"email": "boss@example.com", "email_verified": false}), None),
        (json!({}), json!({"email": "grace"}), None),
        (json!({}), json!({}), None),
        (
            json!({"owner_claim": "lead"}),
            json!({"email": "a@example.com", "lead": "b@example.com"}),
            Some("b@example.com"),
        ),
        (json!({"owner": "ops@example.com"}), json!({"email": "a@example.com"}), Some("ops@example.com")),
        // Whoever else answers for callers of this kind, they do not approve their own calls.
        (
            json!({"owner": "ops@example.com"}),
            json!({"email": "a@example.com", "email_verified": true}),
            Some("a@example.com"),
        ),
        (
            json!({"owner_claim": "lead"}),
            json!({"email": "a@example.com", "email_verified": true, "lead": "b@example.com"}),
            Some("a@example.com"),
        ),
    ] {
        let world = World::with(Signer::p256(), issuer.clone(), json!(["corp"])).await;
        let mut claims = claims("grace");
        claims.as_object_mut().unwrap().extend(claim.as_object().unwrap().clone());
        let token = world.signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims);
        let answer = world.call("ask", &token).header("prefer", "respond-async").send().await.unwrap();
        assert_eq!(answer.status(), 202, "{issuer} {claim}");
        let asked = world.sidecar.backend.asked().remove(0);
        assert_eq!(asked.owner.as_ref().map(|name| name.as_str()), owner, "{issuer} {claim}");
        // Whoever has it does not decide, whether or not anybody vouches for it.
        let own = claim["email"].as_str().filter(|email| email.contains('@'));
        assert_eq!(asked.token_email.as_ref().map(|name| name.as_str()), own, "{issuer} {claim}");
    }
}
