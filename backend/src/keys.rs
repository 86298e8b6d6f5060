//! Keys: their kinds, how they look, and how they are made.
//!
//! A key is a prefix that says what it is, and 128 bits of randomness: nothing that can be guessed, so
//! a plain SHA-256 at rest is enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::wire::Secret;

use crate::clock::Random;
use crate::state::App;
use crate::store::{self, StoreError};

/// What a key may do; see the table of credentials in the API's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyKind {
    /// Configures.
    Management,
    /// Calls the runtime endpoints.
    Standard,
    /// One agent's identity; as standard.
    Agent,
    /// One person's; decides approvals.
    Approver,
    /// A tool server's; verifies tokens.
    Tool,
    /// A proxy's.
    Proxy,
}

impl KeyKind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Management, Self::Standard, Self::Agent, Self::Approver, Self::Tool, Self::Proxy];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Management => "management",
            Self::Standard => "standard",
            Self::Agent => "agent",
            Self::Approver => "approver",
            Self::Tool => "tool",
            Self::Proxy => "proxy",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == name)
    }

    /// What its keys begin with.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Management | Self::Standard => "oak_live_",
            Self::Agent => "oak_agent_",
            Self::Approver => "oak_appr_",
            Self::Tool => "oak_tool_",
            Self::Proxy => "oak_prox_",
        }
    }
}

/// What a join token begins with.
pub(crate) const JOIN_PREFIX: &str = "oak_join_";

/// A key that was just made: shown once, stored as its hash.
pub(crate) struct NewSecret {
    pub(crate) secret: Secret,
    pub(crate) hash: String,
    pub(crate) prefix: String,
}

/// Characters of a key that may be shown.
const SHOWN: usize = 14;

impl NewSecret {
    /// `prefix` and 32 hexadecimal digits.
    pub(crate) fn make(prefix: &str, random: Random) -> Self {
        let text = format!("{prefix}{}", hex(&random.bytes::<16>()));
        let shown = text.chars().take(SHOWN).collect();
        Self { hash: hash(&text), prefix: shown, secret: Secret::new(text) }
    }
}

/// What is stored of a key.
pub(crate) fn hash(key: &str) -> String {
    hex(&sha256(key.as_bytes()))
}

/// When keys were used last: kept here and written now and then, not with every request.
#[derive(Default)]
pub(crate) struct Usage(Mutex<HashMap<Name, HashMap<String, UnixMs>>>);

impl Usage {
    pub(crate) fn note(&self, org: &Name, key_id: &str, now: UnixMs) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.entry(org.clone()).or_default().insert(key_id.to_owned(), now);
    }

    fn take(&self) -> HashMap<Name, HashMap<String, UnixMs>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes what was noted.
pub(crate) async fn flush_usage(app: &Arc<App>) -> Result<(), StoreError> {
    for (org, used) in app.usage.take() {
        let mut write = app.write(&org).await?;
        for (id, at) in used {
            store::keys::used(&mut write, &org, &id, at).await?;
        }
        write.commit().await?;
    }
    Ok(())
}
