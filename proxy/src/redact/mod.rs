//! What of a call's arguments is stored: the structure, and no secret.
//!
//! A secret is replaced by a keyed hash of itself, so that equal values stay comparable in the audit log
//! while nobody without this proxy's key can test a guess.

use crate::call::IdentifiedCall;
use hmac::{Hmac, KeyInit as _, Mac as _};
use oakallow_policy::canonical::hex;
use oakallow_policy::secret;
use serde_json::{Map, Value, json};
use sha2::Sha256;

use crate::config::Redact;

/// Members whose names end like this are secrets wherever they stand (`db_password`, `X-Auth-Token`);
/// compared without case, `-` and `_`.
const SECRET_ENDINGS: [&str; 20] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "passwords",
    "passwds",
    "passphrases",
    "secrets",
    "apikeys",
    "tokenvalue",
];
/// Members of these names are, too short for an ending: many words end in `pin`.
const SECRET_NAMES: [&str; 11] =
    ["tokens", "pin", "cvv", "cvc", "otp", "pwd", "pass", "passcode", "auth", "sessionid", "bearer"];
/// Longer texts are cut; what was cut is known by its hash.
const TEXT_BYTES_MAX: usize = 2_048;
/// Arguments whose redacted form is larger are stored as a hash alone.
const TOTAL_BYTES_MAX: usize = 32 * 1024;

/// Whether a name that will be recorded as it is, is or holds a secret.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    secret::is_in(name)
}

/// Redacts under one key.
pub struct Redactor {
    key: Vec<u8>,
    names: Vec<String>,
    pointers: Vec<String>,
}

impl Redactor {
    /// With the configured additions.
    #[must_use]
    pub fn new(key: Vec<u8>, config: &Redact) -> Self {
        let names = config.keys.iter().map(|k| folded(k)).collect();
        Self { key, names, pointers: config.pointers.clone() }
    }

    /// The form of `arguments` that may be stored.
    #[must_use]
    pub fn redact(&self, arguments: &Value) -> Value {
        let mut value = arguments.clone();
        self.walk(&mut value);
        for pointer in &self.pointers {
            if let (Some(secret), Some(stored)) = (arguments.pointer(pointer), value.pointer_mut(pointer)) {
                *stored = self.hidden(secret);
            }
        }
        if bytes_at_most(&value) <= TOTAL_BYTES_MAX {
            return value;
        }
        let bytes = serde_json::to_vec(&value).map_or(usize::MAX, |b| b.len());
        if bytes > TOTAL_BYTES_MAX { json!({"omitted": self.hash(arguments), "bytes": bytes}) } else { value }
    }

    /// What an approver is shown of a call: the exact arguments. What stands beside them is for tool servers
    /// and may be their credential, which nobody has to know in order to decide.
    #[must_use]
    pub fn shown(&self, call: &IdentifiedCall) -> Value {
        let mut beside = Value::Object(call.beside.clone());
        self.walk(&mut beside);
        assembled(call.parameters.clone(), beside)
    }

    /// What the log holds of a call: arguments and what stands beside them, each redacted for itself.
    #[must_use]
    pub fn recorded(&self, call: &IdentifiedCall) -> Value {
        let beside = if call.beside.is_empty() {
            Value::Null
        } else {
            self.redact(&Value::Object(call.beside.clone()))
        };
        assembled(self.redact(&call.parameters), beside)
    }

    fn walk(&self, value: &mut Value) {
        match value {
            Value::Object(members) => self.walk_members(members),
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item)),
            Value::String(text) if secret::is_in(shown_at_most(text)) => *value = self.hidden(value),
            Value::Number(number) if number.as_u64().is_some_and(secret::is_card) => {
                *value = self.hidden(value);
            }
            Value::String(text) if text.len() > TEXT_BYTES_MAX => {
                let start: String = text.chars().take(TEXT_BYTES_MAX / 8).collect();
                *value = json!({"start": start, "bytes": text.len(), "hmac": self.hash(value)});
            }
            _ => {}
        }
    }

    fn walk_members(&self, members: &mut Map<String, Value>) {
        for (name, value) in members.iter_mut() {
            let name = folded(name);
            if names_secret(&name) || self.names.contains(&name) {
                *value = self.hidden(value);
            } else {
                self.walk(value);
            }
        }
        // A name may be a secret itself, as in {"oak_live_…": "allow"}.
        let secret_names: Vec<String> = members.keys().filter(|name| secret::is_in(name)).cloned().collect();
        for name in secret_names {
            let hidden = format!("redacted:{}", self.hash(&Value::String(name.clone())));
            if let Some(value) = members.remove(&name) {
                members.insert(hidden, value);
            }
        }
    }

    fn hidden(&self, value: &Value) -> Value {
        json!({"redacted": self.hash(value)})
    }

    /// 16 bytes of HMAC-SHA256: enough to compare, useless to guess from without the key.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    fn hash(&self, value: &Value) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length is valid");
        match value {
            Value::String(text) => mac.update(text.as_bytes()),
            other => mac.update(other.to_string().as_bytes()),
        }
        hex(mac.finalize().into_bytes().get(..16).unwrap_or_default())
    }
}

/// What has to be looked through of a text: of a long one little more is kept than its beginning. A word that goes
/// beyond is looked at as a whole.
fn shown_at_most(text: &str) -> &str {
    let Some(behind) = text.get(text.floor_char_boundary(TEXT_BYTES_MAX + 1)..) else { return text };
    let word = behind.find(char::is_whitespace).unwrap_or(behind.len());
    text.get(..text.len() - behind.len() + word).unwrap_or(text)
}

/// How many bytes its JSON may have, without writing it.
fn bytes_at_most(value: &Value) -> usize {
    /// A character that is escaped.
    const ESCAPED: usize = "\\u0000".len();
    const NUMBER: usize = "-1.7976931348623157e-308".len();
    let text = |text: &str| text.len() * ESCAPED + 2;
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => NUMBER,
        Value::String(s) => text(s),
        Value::Array(items) => 2 + items.iter().map(|item| 1 + bytes_at_most(item)).sum::<usize>(),
        Value::Object(members) => {
            2 + members.iter().map(|(name, value)| 2 + text(name) + bytes_at_most(value)).sum::<usize>()
        }
    }
}

fn names_secret(folded: &str) -> bool {
    SECRET_NAMES.contains(&folded) || SECRET_ENDINGS.iter().any(|ending| folded.ends_with(ending))
}

fn folded(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// The arguments alone, unless something stands beside them.
fn assembled(arguments: Value, beside: Value) -> Value {
    match beside {
        Value::Object(mut parts) if !parts.is_empty() => {
            parts.insert("arguments".to_owned(), arguments);
            Value::Object(parts)
        }
        _ => arguments,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(vec![7; 32], &Redact { keys: vec!["iban".into()], pointers: vec!["/a/b".into()] })
    }

    #[test]
    fn secrets_are_replaced_and_the_rest_stays() {
        let arguments = json!({
            "user": "ada", "Pass-Word": "hunter2", "nested": [{"api_key": {"deep": 1}}], "iban": "DE00",
            "a": {"b": "pointed", "c": "stays"}, "text": "key oak_live_0123", "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
            "card": "4111 1111 1111 1111", "number": "4111 1111 1111 1112", "n": 5,
            "forged": {"redacted": 1, "password": "open"}, "oak_agent_4567": true, "card_number": 4111111111111111_u64
        });
        let stored = redactor().redact(&arguments);
        let text = stored.to_string();
        for secret in [
            "hunter2",
            "deep",
            "DE00",
            "pointed",
            "oak_live_0123",
            "eyJ",
            "1111 1111 1111\"",
            "\"open\"",
            "4567",
            "4111111111111111",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for (pointer, value) in [("/user", json!("ada")), ("/a/c", json!("stays")), ("/n", json!(5))] {
            assert_eq!(stored.pointer(pointer), Some(&value));
        }
        assert_eq!(stored["number"], json!("4111 1111 1111 1112"));
    }

    #[test]
    fn the_name_of_a_member_says_that_it_is_a_secret() {
        for name in [
            "password",
            "db_password",
            "newPassword",
            "X-Auth-Token",
            "access_token",
            "aws_secret_access_key",
            "client-secret",
            "API_KEY",
            "ssh_private_key",
            "Set-Cookie",
            "Proxy-Authorization",
            "pin",
            "CVV",
        ] {
            let stored = redactor().redact(&json!({name: "abc"}));
            assert!(stored[name]["redacted"].is_string(), "{name}: {stored}");
        }
        for name in ["max_tokens", "password_policy", "secretary", "shipping", "key", "tokenizer", "author"] {
            assert_eq!(redactor().redact(&json!({name: "abc"})), json!({name: "abc"}));
        }
    }

    #[test]
    fn equal_secrets_are_comparable_wherever_they_stand() {
        let stored = redactor().redact(&json!({"password": "x1", "token": "x1", "cookie": "x2"}));
        assert_eq!(stored["password"], stored["token"]);
        assert_ne!(stored["password"], stored["cookie"]);
    }

    #[test]
    fn equal_secrets_stay_comparable_under_one_key_only() {
        let (a, b) = (redactor(), Redactor::new(vec![8; 32], &Redact::default()));
        let secret = json!({"password": "x"});
        assert_eq!(a.redact(&secret), a.redact(&secret));
        assert_ne!(a.redact(&secret), b.redact(&secret));
        assert_ne!(a.redact(&secret), a.redact(&json!({"password": "y"})));
    }

    #[test]
    fn what_is_stored_is_bounded() {
        let long = redactor().redact(&json!({"text": "x".repeat(100_000)}));
        assert!(long.to_string().len() < 1_000);
        let many = json!((0..50_000).collect::<Vec<u32>>());
        assert!(redactor().redact(&many).to_string().len() < 200);
    }
}
