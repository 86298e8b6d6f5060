//! The fingerprint of a call: what makes a retry *the same call*, and what an approval is bound to.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::call::Call;
use crate::canonical::{self, CanonicalError};

/// SHA-256 over the canonical form of a call and its arguments; written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// In canonical order.
#[derive(Serialize)]
struct Bytes<'a> {
    args: &'a Value,
    audience: &'a str,
    definition_hash: Option<String>,
    method: Option<&'a str>,
    org: &'a str,
    principal: &'a str,
    resource: Option<&'a str>,
    route: &'a str,
    tenant: Option<&'a str>,
    tool: &'a str,
    v: u8,
}

impl Fingerprint {
    /// Of a call that arrives by `route` with these arguments, for a tool whose definition hashes to
    /// `definition_hash` (`None` when it is not registered). The policy's version has no part in it.
    pub fn of(
        call: &Call<'_>,
        route: &str,
        definition_hash: Option<[u8; 32]>,
        args: &Value,
    ) -> Result<Self, CanonicalError> {
        let bytes = Bytes {
            v: 2,
            org: call.org,
            tenant: call.tenant,
            principal: call.principal,
            audience: call.audience,
            route,
            tool: call.tool,
            resource: call.resource,
            method: call.method,
            definition_hash: definition_hash.map(|h| canonical::hex(&h)),
            args,
        };
        Ok(Self(canonical::sha256(&canonical::ordered_bytes(&bytes, Some(args), &Map::new())?)))
    }

    /// From its written form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        canonical::unhex(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&canonical::hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a fingerprint is 64 lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_words_for_another_tool_server_are_another_call() {
        let call = Call {
            org: "demo",
            tenant: None,
            principal: "bot",
            audience: "bank",
            tool: "pay",
            resource: None,
            method: None,
        };
        let of = |call: &Call<'_>| Fingerprint::of(call, "tools", None, &json!({"id": 1})).unwrap();
        assert_ne!(of(&call), of(&Call { audience: "other-bank", ..call }));
    }
}
