//! An issuer that says itself where its keys are (OpenID Connect Discovery 1.0 section 4).

use serde_json::{Value, json};

use crate::support::issuer::{AUD, KeyServer, Signer, claims};
use crate::support::sidecar::{Sidecar, client};
use crate::support::tool::Authority;
use crate::support::until;

struct World {
    signer: Signer,
    server: KeyServer,
    sidecar: Sidecar,
}

impl World {
    /// With what the issuer says of itself at first, to be made of its address.
    async fn start(description: impl Fn(&str) -> Value) -> Self {
        let signer = Signer::p256();
        let server = KeyServer::start(&[signer.jwk("one")]).await;
        server.describes(&description(&server.url));
        Self::over(signer, server, json!({})).await
    }

    /// With more members of the issuer's configuration.
    async fn over(signer: Signer, server: KeyServer, more: Value) -> Self {
        let mut issuer = json!({
            "name": "corp", "issuer": server.url, "audience": AUD, "discovery": true, "tenant_claim": "tenant",
            "keys_refresh_s": 1,
        });
        issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let data = json!([{"address": "127.0.0.1:0", "identities": ["corp"]}]);
        let sidecar = Sidecar::with(json!({
            "listen": {"data": data, "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"}, "issuers": [issuer],
        }))
        .await;
        Self { signer, server, sidecar }
    }

    /// A token of this issuer, under this key.
    fn token(&self, signer: &Signer, kid: &str) -> String {
        let mut claims = claims("grace");
        claims["iss"] = json!(self.server.url);
        signer.token(&json!({"alg": signer.algorithm(), "kid": kid}), &claims)
    }

    async fn status(&self, token: &str) -> u16 {
        let url = format!("http://{}/tools/read", self.sidecar.proxy.data);
        let call = client().post(url).bearer_auth(token).json(&json!({"id": "42"}));
        call.send().await.unwrap().status().as_u16()
    }

    async fn reads(&self, result: &str) {
        let series = format!("oakallow_issuer_key_reads_total{{issuer=\"corp\",result=\"{result}\"}}");
        let url = format!("http://{}/metrics", self.sidecar.proxy.ops);
        let count = async || {
            let text = client().get(&url).send().await.unwrap().text().await.unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned);
            line.map_or(0.0, |rest| rest.trim().parse::<f64>().unwrap())
        };
        let before = count().await;
        until(result, async || (count().await > before).then_some(())).await;
    }
}

fn good(url: &str) -> Value {
    json!({
        "issuer": url, "jwks_uri": format!("{url}/keys"), "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"), "response_types_supported": ["code"],
    })
}

#[tokio::test]
async fn its_keys_are_where_it_says_and_where_it_says_next() {
    let world = World::start(good).await;
    let token = world.token(&world.signer, "one");
    until("the keys", async || (world.status(&token).await == 200).then_some(())).await;
    let asked = world.server.asked();
    assert_eq!(asked[..2], ["/.well-known/openid-configuration", "/keys"], "{asked:?}");
    // It moves its keys, and exchanges them.
    let next = Signer::ed25519();
    let mut moved = good(&world.server.url);
    moved["jwks_uri"] = json!(format!("{}/v2/keys", world.server.url));
    world.server.describes(&moved);
    world.server.serve(Some(&[next.jwk("two")]));
    let new = world.token(&next, "two");
    until("the keys at their new place", async || {
        world.server.asked().iter().any(|path| path == "/v2/keys").then_some(())
    })
    .await;
    until("the new key", async || (world.status(&new).await == 200).then_some(())).await;
    assert_eq!(world.status(&token).await, 401, "a withdrawn key");
    // A description that is gone takes no keys away before their time.
    world.server.describes(&Value::Null);
    world.reads("failed").await;
    assert_eq!(world.status(&new).await, 200);
}

#[tokio::test]
async fn a_description_that_is_not_its_own_or_leads_elsewhere_is_not_followed() {
    type Spoiled = fn(&str) -> Value;
    let spoiled: [(&str, Spoiled); 4] = [
        ("another issuer", |url| json!({"issuer": format!("{url}/"), "jwks_uri": format!("{url}/keys")})),
        ("in the clear from elsewhere", |url| json!({"issuer": url, "jwks_uri": "http://192.0.2.1/keys"})),
        ("no address of keys", |url| json!({"issuer": url})),
        ("a file", |url| json!({"issuer": url, "jwks_uri": "file:///etc/passwd"})),
    ];
    for (what, description) in spoiled {
        let world = World::start(description).await;
        world.reads("failed").await;
        assert_eq!(world.status(&world.token(&world.signer, "one")).await, 503, "{what}");
        assert!(world.server.asked().iter().all(|path| path.ends_with("openid-configuration")), "{what}");
        assert_eq!(world.sidecar.upstream.count(), 0);
    }
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_asked_once_that_authority_is_named() {
    let (dir, signer) = (tempfile::tempdir().unwrap(), Signer::p256());
    let (ours, other, ca) = (Authority::new(), Authority::new(), dir.path().join("ca.pem"));
    ours.issue(dir.path(), "localhost", "keys");
    let server = KeyServer::secured(&[signer.jwk("one")], ours.server(dir.path(), "keys", false)).await;
    server.describes(&good(&server.url));
    other.write(&ca);
    let world = World::over(signer, server, json!({"ca": ca})).await;
    let token = world.token(&world.signer, "one");
    world.reads("failed").await;
    assert_eq!((world.status(&token).await, world.server.asked().len()), (503, 0));
    // Another authority takes no restart.
    ours.write(&ca);
    world.reads("read").await;
    assert_eq!(world.status(&token).await, 200);
    // Over HTTP/2 it is asked for whole addresses.
    let asked = world.server.asked();
    assert!(
        asked[0].ends_with("/.well-known/openid-configuration") && asked[1].ends_with("/keys"),
        "{asked:?}"
    );
    // Nor does one that is not believed any more.
    other.write(&ca);
    world.reads("failed").await;
}
