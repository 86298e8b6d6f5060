//! Any policy, brought to a real backend: what is there afterwards is what was wanted.

use std::collections::BTreeMap;

use oakallow_backend::{Bootstrap, Config, Running};
use oakallow_policy::document::Document;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::plan;
use super::state::Present;
use crate::changes;
use crate::client::Client;
use crate::policy_dir::tests::{document, in_order};

/// Each is two policies and some tens of requests.
const CASES: usize = 12;

async fn backend(dir: &std::path::Path) -> (Running, Client) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::new(([127, 0, 0, 1], 0).into(), dir.to_owned());
    let backend = oakallow_backend::start(config).await.unwrap();
    let first = Bootstrap { org: "demo".to_owned(), owner_email: "a@demo.example".to_owned() };
    let key = backend.bootstrap(first).await.unwrap();
    let client = Client::new(&format!("http://{}", backend.addr), key);
    (backend, client)
}

/// A path has directions where these two names would be (RFC 3986 section 5.2.4).
fn can_be_named(document: &Document) -> bool {
    let policy = &document.policy;
    let names = policy.tools.iter().map(|tool| &tool.name).chain(policy.categories.iter().map(|c| &c.name));
    names.chain(&policy.tenants).all(|name| !matches!(name.as_str(), "." | ".."))
}

/// Goes there, and looks; the policy that was there before is `before`.
async fn bring(client: &Client, before: &Document, wanted: &Document) -> Document {
    let present = Present::fetch(client).await.unwrap();
    assert_eq!(in_order(present.document.clone()), in_order(before.clone()));
    let changes = plan::changes(&present.document, wanted);
    changes::make(client, &changes, Some(present.version)).await.unwrap();
    let after = Present::fetch(client).await.unwrap();
    assert_eq!(
        after.version,
        present.version + u64::try_from(changes.len()).unwrap(),
        "one version a change"
    );
    assert!(plan::changes(&after.document, wanted).is_empty(), "{wanted:#?}");
    after.document
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_what_is_pulled() {
    let mut runner = TestRunner::deterministic();
    let policies = (document(), document())
        .prop_filter("names in paths", |(one, other)| can_be_named(one) && can_be_named(other));
    for _ in 0..CASES {
        let (one, mut other) = policies.new_tree(&mut runner).unwrap().current();
        // Tenants are never deleted.
        for tenant in &one.policy.tenants {
            if !other.policy.tenants.contains(tenant) {
                other.policy.tenants.push(tenant.clone());
                other.tenant_rules.insert(tenant.clone(), Vec::new());
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let (_backend, client) = backend(dir.path()).await;
        let empty = Document { tenant_rules: BTreeMap::new(), ..Document::parse("x", "org: demo").unwrap() };
        let after = bring(&client, &empty, &one).await;
        assert_eq!(in_order(after), in_order(one.clone()));
        let after = bring(&client, &one, &other).await;
        assert_eq!(in_order(after), in_order(other.clone()));
        let files = tempfile::tempdir().unwrap();
        crate::policy_dir::write(files.path(), &other).unwrap();
        let read = crate::policy_dir::read(files.path()).unwrap();
        assert!(plan::changes(&Present::fetch(&client).await.unwrap().document, &read).is_empty());
    }
}
