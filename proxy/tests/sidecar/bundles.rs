//! Which policy is taken up while the proxy runs.

use oakallow_policy::wire::Signed;
use serde_json::json;

use crate::support::policy::OrgBundle;
use crate::support::sidecar::Sidecar;
use crate::support::until;

/// Offers a bundle, and waits until the proxy has made up its mind about it: messages of the feed are
/// worked off one by one, so a second fetch means that the first is done with.
async fn offer(sidecar: &Sidecar, version: u64, bundle: Signed) {
    let before = sidecar.backend.fetches();
    let fetched = async |times| {
        until("a fetch", async || (sidecar.backend.fetches() >= before + times).then_some(())).await;
    };
    sidecar.backend.publish(version, bundle);
    fetched(1).await;
    sidecar.backend.announce(version);
    fetched(2).await;
}

fn altered(bundle: &OrgBundle) -> Signed {
    let mut signed = bundle.signed();
    signed.payload = signed.payload.replace("\"disabled\"", "\"allowed\"");
    signed
}

#[tokio::test]
async fn a_bundle_that_is_older_or_not_signed_by_the_pinned_key_is_refused_and_the_last_good_one_stays() {
    let sidecar = Sidecar::start().await;
    // One fetch by the start, one when the feed is connected.
    until("the feed", async || (sidecar.backend.fetches() >= 2).then_some(())).await;
    let looser = |version| OrgBundle::new(version).with("drop", "allowed");
    let mut unsigned = looser(6).signed();
    unsigned.signature = String::new();
    let mut elsewhere = looser(6).signed();
    elsewhere.kid = "bundle-2".to_owned();
    for (version, bad) in [
        (4, looser(4).signed()),
        (6, looser(6).forged()),
        (6, altered(&OrgBundle::new(6))),
        (6, unsigned),
        (6, elsewhere),
    ] {
        offer(&sidecar, version, bad).await;
        assert_eq!(sidecar.call("drop").send().await.unwrap().status(), 403);
        assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
        assert_eq!(sidecar.metric("oakallow_policy_version").await, 5.0);
    }
    assert!(sidecar.upstream.seen().iter().all(|seen| seen.line == "POST /tools/read"));
    offer(&sidecar, 6, looser(6).signed()).await;
    assert_eq!(sidecar.call("drop").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_proxy_that_gets_no_good_bundle_at_its_start_refuses_everything() {
    use crate::support::backend::Backend;
    let backend = Backend::start(OrgBundle::new(5).forged());
    let dir = tempfile::tempdir().unwrap();
    let upstream = crate::support::upstream::Upstream::start().await;
    let text = crate::support::sidecar::config_text(dir.path(), &backend.url, &upstream.url, &json!({}));
    let config = oakallow_proxy::config::Config::parse("test.yaml", &text).unwrap();
    let proxy = oakallow_proxy::start(config).await.unwrap();
    let client = crate::support::sidecar::client();
    let call = client.post(format!("http://{}/tools/read", proxy.data));
    let answer = call.header("x-api-key", crate::support::policy::AGENT).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let ready = client.get(format!("http://{}/readyz", proxy.ops)).send().await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().as_str()), (503, "no policy"));
    assert_eq!(upstream.count(), 0);
}
