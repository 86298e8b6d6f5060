//! Bundles as a backend signs them.

use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use oakallow_policy::canonical::{base64url, hex, sha256};
use oakallow_policy::wire::{Bundle, PublicKey, Purpose, Signed};
use serde_json::{Value, json};

/// An agent of the whole org.
pub(crate) const AGENT: &str = "oak_agent_test";
/// An agent of the tenant `acme`.
pub(crate) const ACME: &str = "oak_agent_acme";
/// The org.
pub(crate) const ORG: &str = "demo";
/// The tool server.
pub(crate) const AUDIENCE: &str = "tools";
const KID: &str = "bundle-1";

/// The key that proxies pin.
pub(crate) fn pinned() -> PublicKey {
    PublicKey::of(KID, &signing(7))
}

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Now, as bundles say it.
#[expect(clippy::disallowed_methods, reason = "the scripted backend has the real clock")]
pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// What an org's bundle says.
#[derive(Clone)]
pub(crate) struct OrgBundle {
    pub(crate) version: u64,
    pub(crate) issued_at: u64,
    /// `read` is allowed, `ask` needs a person, `drop` is disabled.
    pub(crate) tools: Value,
    pub(crate) kill_switches: Value,
    /// Of `ada`, an agent of the whole org, and of `bob`, an agent of the tenant `acme`.
    pub(crate) keys: Value,
}

impl OrgBundle {
    /// Fresh.
    pub(crate) fn new(version: u64) -> Self {
        let tool = |name: &str, permission: &str, risk: &str| {
            json!({
                "name": name, "audience": AUDIENCE, "default_permission": permission, "risk_level": risk,
                "approved": true,
                "parameter_schema": {
                    "type": "object", "properties": {"id": {"type": "string"}, "pad": {}},
                    "additionalProperties": false,
                },
            })
        };
        let tools = json!([
            tool("read", "allowed", "medium"),
            tool("wipe", "allowed", "high"),
            tool("ask", "requires_approval", "medium"),
            tool("drop", "disabled", "medium"),
        ]);
        let key = |key: &str, principal: &str, tenancy: Value| {
            json!({
                "sha256": hex(&sha256(key.as_bytes())), "key_id": format!("key_{principal}"),
                "principal": principal, "tenancy": tenancy,
            })
        };
        let keys = json!([
            key(AGENT, "ada", json!({"kind": "org"})),
            key(ACME, "bob", json!({"kind": "one", "tenants": "acme"})),
        ]);
        Self { version, issued_at: now_ms(), tools, kill_switches: json!([]), keys }
    }

    /// With another permission for a tool.
    pub(crate) fn with(mut self, tool: &str, permission: &str) -> Self {
        for known in self.tools.as_array_mut().unwrap() {
            if known["name"] == tool {
                known["default_permission"] = json!(permission);
            }
        }
        self
    }

    fn value(&self) -> Value {
        json!({
            "org": ORG, "version": self.version, "issued_at": self.issued_at,
            "scope": {
                "kind": "org",
                "policy": {
                    "org": ORG, "tools": self.tools, "kill_switches": self.kill_switches,
                    "tenants": ["acme", "globex"],
                },
                "keys": self.keys,
                "audience_keys": [{
                    "audience": AUDIENCE, "kid": format!("1.{AUDIENCE}"), "key": base64url(&[9; 32]), "current": true,
                }],
            },
        })
    }

    /// Signed with the pinned key.
    pub(crate) fn signed(&self) -> Signed {
        seal(self.value(), 7)
    }

    /// Signed with a key that nobody pinned, under the pinned one's name.
    pub(crate) fn forged(&self) -> Signed {
        seal(self.value(), 8)
    }
}

/// A tenant without rules of its own.
pub(crate) fn tenant(name: &str, version: u64) -> Signed {
    let scope = json!({"kind": "tenant", "tenant": name, "rules": []});
    seal(json!({"org": ORG, "version": version, "issued_at": now_ms(), "scope": scope}), 7)
}

fn seal(bundle: Value, seed: u8) -> Signed {
    let bundle: Bundle = serde_json::from_value(bundle).expect("a bundle");
    Signed::seal(Purpose::Bundle, &bundle, KID, &signing(seed)).expect("it can be written")
}
