//! Who the client's agent is: the environment says it, as a header says it over HTTP. And what of our own
//! environment the tool server does not get.

use std::ffi::OsStr;

use http::{HeaderMap, HeaderValue};
use oakallow_policy::id::Name;

use crate::identity::{Caller, KEY_HEADER, TENANT_HEADER, by_key, key_principal};
use crate::mcp::stdio::WrapError;
use crate::policy::Snapshot;
use crate::refusal::Refusal;

/// The agent's key.
pub(super) const KEY: &str = "OAKALLOW_API_KEY";
/// The tenant, for a key that reaches several.
const TENANT: &str = "OAKALLOW_TENANT_ID";
/// What our variables begin with.
const OURS: &str = "OAKALLOW_";
/// What our secrets begin with.
const SECRET: &str = "oak_";

/// The agent's key, and the tenant that it calls for.
pub(super) struct Credential {
    /// What a request over HTTP would have.
    headers: HeaderMap,
    key: String,
}

impl Credential {
    /// As the client has set it.
    pub(super) fn from_environment() -> Result<Self, WrapError> {
        let set =
            |name| std::env::var(name).ok().map(|v: String| v.trim().to_owned()).filter(|v| !v.is_empty());
        let key = set(KEY).ok_or(WrapError::NoKey)?;
        let mut headers = HeaderMap::new();
        for (name, value) in [(KEY_HEADER, Some(&key)), (TENANT_HEADER, set(TENANT).as_ref())] {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(value);
            headers.insert(name, value.map_err(|_| WrapError::BadKey("it has an odd character".to_owned()))?);
        }
        Ok(Self { headers, key })
    }

    /// Whether it is any good, before a server is started for it.
    pub(super) fn check(&self, snapshot: &Snapshot) -> Result<(), WrapError> {
        if snapshot.rules.is_closed() {
            return Err(WrapError::NoPolicy);
        }
        let refused = |refusal: Refusal| WrapError::BadKey(refusal.answer().detail);
        self.caller(snapshot).map(drop).map_err(refused)
    }

    /// Who calls. Asked for each message: the key may have been revoked since.
    pub(super) fn caller(&self, snapshot: &Snapshot) -> Result<Caller, Refusal> {
        if snapshot.rules.is_closed() {
            return Err(Refusal::PolicyUnavailable("no policy is loaded yet".to_owned()));
        }
        by_key(&self.headers, snapshot)
    }

    /// Who has the key, whatever else is wrong: for the record.
    pub(super) fn principal<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Name> {
        key_principal(&self.headers, snapshot)
    }

    /// Whether the tool server must not have this variable: whatever is ours by its name, and our secrets
    /// under any name.
    pub(super) fn keeps(&self, name: &OsStr, value: &OsStr) -> bool {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        name.starts_with(OURS) || value.trim_start().starts_with(SECRET) || value.contains(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_secrets_stay_here_and_the_rest_passes() {
        let credential = Credential { headers: HeaderMap::new(), key: "oak_agent_0123".to_owned() };
        let keeps = |name: &str, value: &str| credential.keeps(OsStr::new(name), OsStr::new(value));
        assert!(keeps("OAKALLOW_API_KEY", "x") && keeps("OAKALLOW_ANYTHING", ""));
        assert!(keeps("JOIN", "oak_join_1") && keeps("AUTH", "Bearer oak_agent_0123"));
        assert!(!keeps("HOME", "/srv/oak_tree") && !keeps("GITHUB_TOKEN", "ghp_1"));
    }
}
