//! Who may call, what the server does not get to know, and who cannot reach it.

use std::collections::HashSet;
use std::fs;

use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::{Wrapper, Wrapping, bare_server};
use oakallow_e2e::wait::until;
use serde_json::{Value, json};

use crate::govern_bare;

#[tokio::test]
async fn the_server_does_not_get_our_secrets_and_nobody_else_gets_to_the_server() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "secrets", json!({})).await;
    let key = stack.env("OAKALLOW_ACME_KEY");
    let bearer = format!("Bearer {key}");
    let variables = [
        ("OAKALLOW_API_KEY", key),
        ("OAKALLOW_JOIN_TOKEN", "anything"),
        ("JOIN", "oak_join_0123456789"),
        ("AUTHORIZATION", &bearer),
        ("HARMLESS", "yes"),
    ];
    let mut wrapper = Wrapper::start(&wrapping, &bare_server(&wrapping.dir().join("reached")), &variables);
    wrapper.call(1, "show", &json!({}));
    let shown = wrapper.answer(&json!(1)).await;
    let env = shown["result"]["structuredContent"]["env"].as_object().unwrap();
    assert_eq!(env["HARMLESS"], "yes");
    for (name, value) in env {
        let value = value.as_str().unwrap();
        assert!(!name.starts_with("OAKALLOW_") && !value.contains("oak_"), "{name}");
    }
    let server = wrapper.server().await;
    let listening = listening_sockets();
    for process in [wrapper.process.id(), server] {
        assert!(sockets_of(process).is_disjoint(&listening), "process {process} listens");
    }
    assert!(!wrapper.process.logged().contains(key), "the key is in the log");
}

/// Inodes of sockets in the state LISTEN (`0A`).
fn listening_sockets() -> HashSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    let fields = rows.map(|row| row.split_whitespace().collect::<Vec<_>>());
    fields.filter(|f| f.get(3) == Some(&"0A")).filter_map(|f| f.get(9).map(|i| (*i).to_owned())).collect()
}

fn sockets_of(process: u32) -> HashSet<String> {
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let names = links.map(|link| link.to_string_lossy().into_owned());
    names.filter_map(|n| Some(n.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

#[tokio::test]
async fn a_key_that_is_missing_or_wrong_is_told_before_the_server_starts() {
    let stack = Stack::start().await;
    let wrapping = Wrapping::new(&stack, "keyless", json!({})).await;
    let marker = wrapping.dir().join("started");
    let server = ["touch".to_owned(), marker.display().to_string()];
    for (variables, said) in [
        (&[][..], "no key: set OAKALLOW_API_KEY"),
        (&[("OAKALLOW_API_KEY", "")], "no key: set OAKALLOW_API_KEY"),
        (
            &[("OAKALLOW_API_KEY", "oak_agent_nonsense")],
            "the agent's key in OAKALLOW_API_KEY is not accepted",
        ),
    ] {
        let mut wrapper = Wrapper::start(&wrapping, &server, variables);
        assert!(!wrapper.ended().await.success());
        let logged = wrapper.process.logged();
        assert!(logged.contains(said) && !logged.contains("nonsense"), "{logged}");
        assert!(wrapper.said().is_empty() && !marker.exists());
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_later_is_refused_at_each_call() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let control = stack.control();
    let key = json!({"tier": "standard", "name": "for a while", "tenancy": "one", "tenants": ["acme"]});
    let key = control.create("/v1/keys", key).await;
    let wrapping = Wrapping::new(&stack, "revoked", json!({})).await;
    let server = bare_server(&wrapping.dir().join("reached"));
    let mut wrapper = Wrapper::ready(&wrapping, &server, key["key"].as_str().unwrap()).await;
    wrapper.call(1, "note", &json!({"number": 1}));
    assert_eq!(wrapper.answer(&json!(1)).await["result"]["structuredContent"]["noted"], 1);
    let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    let revoked = control.management().request(reqwest::Method::DELETE, &path, "").send().await;
    assert!(revoked.status < 300, "{revoked:#?}");
    let mut id = 1;
    let refused = until("the revocation", async || {
        id += 1;
        wrapper.call(id, "note", &json!({"number": id}));
        let answer = wrapper.answer(&json!(id)).await;
        (!answer["error"].is_null()).then_some(answer)
    });
    let refused: Value = refused.await;
    assert_eq!(refused["error"]["data"]["reason"], "unauthenticated", "{refused:#}");
    wrapper.request(&json!(1), "ping", &json!({}));
    assert!(wrapper.process.runs());
}
