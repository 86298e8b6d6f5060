//! Secrets where names stand. A name of a call is in events, drafts and approvals as it is, for good: a key
//! must not become one.
//!
//! The model is the proxy's `redact/pattern.rs`, which hides much more in arguments (card numbers, what
//! follows `Bearer`). Here are the shapes that end up in the field of a name by mistake, and none that the
//! proxy lets pass: it asks for approvals here.

use http::StatusCode;
use oakallow_policy::id::Name;

use crate::error::ApiError;
use crate::keys::{JOIN_PREFIX, KeyKind};

/// 422 when a name is or holds a secret, which the answer does not repeat.
pub(crate) fn none_is_a_secret<const N: usize>(names: [(&str, Option<&Name>); N]) -> Result<(), ApiError> {
    let secret = names.into_iter().find(|(_, name)| name.is_some_and(|name| is_in(name)));
    secret.map_or(Ok(()), |(pointer, _)| {
        let detail =
            "This looks like a secret, and names are recorded as they are: send it in the parameters.";
        Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "secret_in_name", detail)
            .with("pointer", pointer))
    })
}

/// How keys of others begin: OpenAI, Stripe, GitHub, GitLab, Slack, AWS, Google.
const FOREIGN: [&str; 12] = [
    "sk-",
    "sk_live_",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "AIza",
];
/// The shortest of those: `sk-8` is an article number.
const FOREIGN_BYTES_MIN: usize = 16;
/// Parameters of URLs and assignments whose values are secrets, without `-`, `_` and `.`.
const ASSIGNED: [&str; 12] = [
    "apikey",
    "token",
    "accesstoken",
    "refreshtoken",
    "password",
    "passwd",
    "secret",
    "clientsecret",
    "secretkey",
    "sig",
    "signature",
    "xamzsignature",
];

/// Whether a name is or holds a secret, percent-encoded or not.
fn is_in(name: &str) -> bool {
    let encoded = name.contains('%');
    is_in_plain(name) || encoded && is_in_plain(&percent_decoded(name))
}

fn is_in_plain(name: &str) -> bool {
    let mut words = name.split(|c: char| c.is_whitespace() || "\"'`,;:=&?/\\()<>[]{}|@".contains(c));
    words.any(|word| is_key(word) || is_jwt(word))
        || name.contains("-----BEGIN") && name.contains("PRIVATE KEY")
        || has_password(name)
        || is_assigned(name)
}

/// Ours are known however short a piece of one is.
fn is_key(word: &str) -> bool {
    word.starts_with(JOIN_PREFIX)
        || KeyKind::ALL.iter().any(|kind| word.starts_with(kind.prefix()))
        || word.len() >= FOREIGN_BYTES_MIN && FOREIGN.iter().any(|start| word.starts_with(start))
}

/// JWS in its compact form (RFC 7515): three parts, the first of them an object in base64url.
fn is_jwt(word: &str) -> bool {
    word.len() > 30 && word.starts_with("eyJ") && word.split('.').count() == 3
}

/// `scheme://user:password@host` (RFC 3986 section 3.2.1).
fn has_password(name: &str) -> bool {
    name.split("://").skip(1).any(|rest| {
        let authority =
            rest.split(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).next().unwrap_or_default();
        let user = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
        user.is_some_and(|(_, password)| !password.is_empty())
    })
}

/// `?api_key=…`
fn is_assigned(name: &str) -> bool {
    let pairs = name.split(|c: char| c.is_whitespace() || "?&;,#".contains(c));
    pairs.filter_map(|pair| pair.split_once('=')).any(|(key, value)| {
        let in_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let key = key.rsplit(|c| !in_key(c)).next().unwrap_or_default();
        let key = key.replace(['-', '_', '.'], "").to_ascii_lowercase();
        !value.is_empty() && !value.starts_with('=') && ASSIGNED.contains(&key.as_str())
    })
}

/// The text behind `%5F` and its like (RFC 3986 section 2.1).
fn percent_decoded(name: &str) -> String {
    let pair = format!("name={}", name.replace('&', "%26").replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_seen_wherever_they_stand() {
        for name in [
            "oak_live_0",
            "use oak_agent_0123, please",
            "oak_join_0123456789",
            "https://example.com/?key=AKIA0123456789ABCDEF&x=1",
            "{\"token\":\"ghp_0123456789abcdef0123\"}",
            "see eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc for it",
            "-----BEGIN EC PRIVATE KEY----- MHc",
            "https://files.example/report?a=1&API-Key=x",
            "https://files.example/report?api%5Fkey=x",
            "psql password=hunter2 host=db",
            "files/(client_secret=hunter2)",
            "ftp://ada:hunter2@files.example/a",
            "oak%5Flive%5F0123",
            "a+b&c%20oak%5flive_0123",
        ] {
            assert!(is_in(name), "{name}");
        }
    }

    #[test]
    fn ordinary_names_are_kept() {
        for name in [
            "server-prod-01",
            "sk-8",
            "oak_tree",
            "AKIA",
            "eyJ is how an object begins",
            "https://files.example/report?page_token=&max_tokens=100&key=a",
            "design=blue",
            "if token == 5",
            "https://ada@example.com:8080/a:b@c",
            "100 % sure",
        ] {
            assert!(!is_in(name), "{name}");
        }
    }
}
