//! Which bundles are taken up.

use ed25519_dalek::SigningKey;
use oakallow_policy::wire::Secret;

use super::*;
use crate::clock;

const KID: &str = "bundle-1";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn policy(directory: &std::path::Path) -> Policy {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let backend = Backend::new("http://127.0.0.1:1".into(), "prx_1".into(), Secret::new("k".into())).unwrap();
    let public = PublicKey::of(KID, &key());
    let refused = IntCounterVec::new(prometheus::Opts::new("refused", "r"), &["reason"]).unwrap();
    let watched = (Staleness::default(), refused);
    Policy::new(Name::new("demo").unwrap(), public, backend, directory.to_owned(), watched)
}

fn bundle(org: &str, version: u64, issued_at: u64) -> Signed {
    let text = serde_json::json!({
        "org": org, "version": version, "issued_at": issued_at,
        "scope": {"kind": "org", "policy": {"org": org}, "keys": [], "audience_keys": []},
    });
    let bundle: Bundle = serde_json::from_value(text).unwrap();
    Signed::seal(Purpose::Bundle, &bundle, KID, &key()).unwrap()
}

#[test]
fn older_altered_and_foreign_bundles_are_refused_and_the_last_good_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let policy = policy(directory.path());
    assert!(policy.snapshot().rules.is_closed());
    policy.install_org(&bundle("demo", 5, 1)).unwrap();
    let mut altered = bundle("demo", 6, 1);
    altered.payload = altered.payload.replace("\"version\":6", "\"version\":7");
    for bad in [bundle("demo", 4, 1), altered, bundle("other", 9, 1)] {
        assert!(policy.install_org(&bad).is_err());
    }
    assert_eq!(policy.snapshot().rules.version(), 5);
}

#[test]
fn what_is_read_back_from_disk_is_verified_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("org.json");
    std::fs::write(&file, serde_json::to_vec(&bundle("demo", 5, 1)).unwrap()).unwrap();
    assert!(policy(directory.path()).load_from_disk().unwrap());
    let altered = std::fs::read_to_string(&file).unwrap().replace("issued_at", "issued_xt");
    std::fs::write(&file, altered).unwrap();
    let policy = policy(directory.path());
    assert!(policy.load_from_disk().is_err());
    assert!(policy.snapshot().rules.is_closed());
}

#[test]
fn a_confirmation_of_a_newer_version_does_not_confirm_this_one() {
    let directory = tempfile::tempdir().unwrap();
    let policy = policy(directory.path());
    policy.install_org(&bundle("demo", 5, 1)).unwrap();
    let say = |version| {
        let current = StillCurrent { org: Name::new("demo").unwrap(), version, at: clock::now_ms() };
        Signed::seal(Purpose::StillCurrent, &current, KID, &key()).unwrap()
    };
    assert!(!policy.confirm(&say(6)).unwrap());
    assert!(policy.age_s() > 1_000);
    assert!(policy.confirm(&say(5)).unwrap());
    assert!(policy.age_s() < 5);
}

fn tenant_bundle(tenant: &str, version: u64) -> Signed {
    let text = serde_json::json!({
        "org": "demo", "version": version, "issued_at": 1,
        "scope": {"kind": "tenant", "tenant": tenant, "rules": []},
    });
    let bundle: Bundle = serde_json::from_value(text).unwrap();
    Signed::seal(Purpose::Bundle, &bundle, KID, &key()).unwrap()
}

#[tokio::test]
async fn a_tenants_rules_never_go_back_nor_come_from_another_tenant() {
    let directory = tempfile::tempdir().unwrap();
    let policy = policy(directory.path());
    let acme = Name::new("acme").unwrap();
    assert!(policy.open_tenant(&acme, &tenant_bundle("acme", 5)).is_ok());
    for bad in [tenant_bundle("acme", 4), tenant_bundle("globex", 6), bundle("demo", 7, 1)] {
        assert!(policy.open_tenant(&acme, &bad).is_err());
    }
    policy.tenant_changed(&acme, 8).await;
    assert!(policy.open_tenant(&acme, &tenant_bundle("acme", 7)).is_err());
    assert!(policy.open_tenant(&acme, &tenant_bundle("acme", 8)).is_ok());
}

#[tokio::test]
async fn a_tenant_that_was_never_loaded_has_no_view_while_the_backend_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let policy = policy(directory.path());
    policy.install_org(&bundle("demo", 5, 1)).unwrap();
    assert!(policy.view(Some(&Name::new("acme").unwrap())).await.is_err());
    assert!(policy.view(None).await.is_ok());
}
