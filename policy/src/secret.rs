//! What a secret looks like, wherever in a text it stands. Rather one harmless text hidden than one secret kept.

use hints::Hints;

mod hints;

/// Words that begin like this are secrets.
const STARTS: [&str; 18] = [
    "oak_live_",
    "oak_agent_",
    "oak_appr_",
    "oak_tool_",
    "oak_prox_",
    "oak_join_",
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
/// JWS in its compact form begins with an object in base64url: `{"`.
const JWT_START: &str = "eyJ";
/// A word that begins like a secret is one from this length on: `sk-8` is an article number.
const SECRET_BYTES_MIN: usize = 16;

/// What stands behind these names and a `=` is a secret, as in the query of a URL or an assignment; compared
/// without case, `-`, `_` and `.`.
const ASSIGNED: [&str; 20] = [
    "apikey",
    "token",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authtoken",
    "sessiontoken",
    "securitytoken",
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "clientsecret",
    "secretkey",
    "sig",
    "signature",
    "xamzsignature",
    "xamzsecuritytoken",
    "xgoogsignature",
];

/// Whether a text is or holds a secret or a card number, percent-encoded or not.
#[must_use]
pub fn is_in(text: &str) -> bool {
    is_in_plain(text)
        || text.contains('%') && is_in_plain(&String::from_utf8_lossy(&percent_decoded(text.as_bytes())))
}

fn is_in_plain(text: &str) -> bool {
    let hints = Hints::of(text);
    hints.key_block && text.contains("PRIVATE KEY")
        || hints.key && words(text).any(|word| is_key(word) || is_jwt(word))
        || hints.bearer && follows_bearer(text)
        || hints.assigned && is_assigned(text)
        || hints.scheme && has_userinfo(text)
        || hints.digits && has_card_number(text)
}

/// Without percent-encoding; what is none stays as it is.
#[must_use]
pub fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let digit =
        |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        match (byte, digit(value.get(at + 1)), digit(value.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high * 16 + low);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Whether a number is a card number.
#[must_use]
pub fn is_card(number: u64) -> bool {
    has_card_number(&number.to_string())
}

/// The parts between spaces, quotes, brackets and the punctuation of URLs and assignments: in one of these a secret stands
/// that is looked for, here and by those who must not pass one on.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || is_between(c))
}

const fn is_between(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | '`'
            | ','
            | ';'
            | ':'
            | '='
            | '&'
            | '?'
            | '/'
            | '\\'
            | '('
            | ')'
            | '<'
            | '>'
            | '['
            | ']'
            | '{'
            | '}'
            | '|'
            | '@'
    )
}

fn is_key(word: &str) -> bool {
    // Our own keys are known however short a piece of one is.
    word.starts_with("oak_") && STARTS.iter().any(|start| word.starts_with(start))
        || word.len() >= SECRET_BYTES_MIN && STARTS.iter().any(|start| word.starts_with(start))
}

/// JWS in its compact form (RFC 7515): three parts.
fn is_jwt(word: &str) -> bool {
    word.starts_with(JWT_START) && word.len() > 30 && word.matches('.').count() == 2
}

/// `Bearer` (RFC 6750), and behind it something as long as a token.
fn follows_bearer(text: &str) -> bool {
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        let ends = word.len().checked_sub("bearer".len()).and_then(|at| word.get(at..));
        if ends.is_some_and(|end| end.eq_ignore_ascii_case("bearer"))
            && words.clone().next().is_some_and(|next| next.len() >= SECRET_BYTES_MIN)
        {
            return true;
        }
    }
    false
}

/// `api_key=…`
fn is_assigned(text: &str) -> bool {
    text.match_indices('=').any(|(at, _)| {
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = before.rsplit(|c| !in_name(c)).next().unwrap_or_default();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let has_value =
            !after.starts_with(|c: char| c.is_whitespace() || "=&;,".contains(c)) && !after.is_empty();
        has_value && ASSIGNED.contains(&name.to_ascii_lowercase().as_str())
    })
}

/// `scheme://user:password@host` (RFC 3986 section 3.2.1).
fn has_userinfo(text: &str) -> bool {
    text.match_indices("://").any(|(at, mark)| {
        let rest = text.get(at + mark.len()..).unwrap_or_default();
        let authority =
            rest.split(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).next().unwrap_or_default();
        let userinfo = authority.rsplit_once('@').map(|(userinfo, _)| userinfo);
        userinfo.and_then(|u| u.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
    })
}

/// Groups of digits with single spaces or dashes between them, of which some in a row are a card number: a date
/// or an amount may stand beside it.
fn has_card_number(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_digit() || c == ' ' || c == '-')).any(|run| {
        if run.bytes().filter(u8::is_ascii_digit).count() < DIGITS.0 {
            return false;
        }
        let groups: Vec<&str> = run.split([' ', '-']).collect();
        (0..groups.len()).any(|first| starts_with_card(groups.get(first..).unwrap_or_default()))
    })
}

/// Whether some of these groups, from the first on, are a card number. An empty group is a second separator.
fn starts_with_card(groups: &[&str]) -> bool {
    let mut digits = Vec::new();
    for group in groups {
        digits.extend(group.chars().filter_map(|c| c.to_digit(10)));
        if group.is_empty() || digits.len() > DIGITS.1 {
            return false;
        }
        // The industries of travel, banks and cards: times in milliseconds begin with 1.
        if digits.len() >= DIGITS.0 && matches!(digits.first(), Some(2..=6)) && checks(&digits) {
            return true;
        }
    }
    false
}

/// The least and the most digits of a card number (ISO/IEC 7812-1).
const DIGITS: (usize, usize) = (13, 19);

/// Luhn's check digit (ISO/IEC 7812-1, annex B).
fn checks(digits: &[u32]) -> bool {
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let each = digits.iter().rev().enumerate();
    let sum: u32 = each.map(|(at, digit)| if at % 2 == 1 { doubled(*digit) } else { *digit }).sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_seen_wherever_they_stand() {
        for text in [
            "oak_live_0",
            "use oak_agent_0123, please",
            "https://example.com/?key=AKIA0123456789ABCDEF&x=1",
            "{\"token\":\"ghp_0123456789abcdef0123\"}",
            "export OPENAI_API_KEY=sk-0123456789abcdef",
            "Authorization: Bearer 0123456789abcdef",
            "curl -H 'authorization: BEARER 0123456789abcdef'",
            "see eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc for it",
            "-----BEGIN EC PRIVATE KEY-----\nMHc",
            "4111111111111111",
            "4111 1111 1111 1111",
            "5500-0055-5555-5559",
            "3714 496353 98431",
            "charge 25 4111 1111 1111 1111 on 2026-11-24",
            "card:4111111111111111.",
            "https://files.example/report?api_key=TOPSECRET123",
            "https://files.example/report?a=1&API-Key=x",
            "https://files.example/report?api%5Fkey=x",
            "https://s3.example/o?X-Amz-Credential=c&X-Amz-Signature=0a1b",
            "https://x.blob.example/c?sv=2024&sig=abc%3D",
            "psql password=hunter2 host=db",
            "ftp://ada:hunter2@files.example/a",
            "oak%5Flive%5F0123",
            "oak_join_0123456789",
            "files/(client_secret=hunter2)",
            "a+b&c%20oak%5flive_0123",
        ] {
            assert!(is_in(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_first_look_hides_nothing_from_the_second(
            parts in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..12)
        ) {
            let text = parts.concat();
            let found = text.contains("-----BEGIN") && text.contains("PRIVATE KEY")
                || words(&text).any(|word| is_key(word) || is_jwt(word))
                || follows_bearer(&text)
                || is_assigned(&text)
                || has_userinfo(&text)
                || has_card_number(&text);
            proptest::prop_assert_eq!(is_in_plain(&text), found, "{}", text);
        }
    }

    /// What secrets are made of, and what stands between them.
    const PIECES: [&str; 34] = [
        "oak_",
        "live_",
        "sk-",
        "sk_live_",
        "ghp_",
        "github_pat_",
        "xoxb-",
        "AKIA",
        "AIza",
        "eyJ",
        "0123456789abcdef",
        ".",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "Bearer",
        "BEARER ",
        " ",
        "\u{a0}",
        "\u{2003}",
        "\t",
        "é",
        "=",
        "token",
        "pass-word",
        "password=",
        "://",
        "http://",
        "ada:hunter2",
        "@",
        "4111",
        "1111 ",
        "1111-",
        "-----BEGIN",
        " EC PRIVATE KEY",
        "/",
    ];

    #[test]
    fn ordinary_texts_are_kept() {
        for text in [
            "",
            "server-prod-01",
            "sk-8",
            "the bearer of bad news",
            "4111 1111 1111 1112",
            "4111  1111 1111 1111",
            "1764000000008",
            "0000000000000000",
            "41111111111111110000000",
            "2026-11-24 07:30:38",
            "eyJ is how an object begins",
            "https://files.example/report?page_token=&max_tokens=100&key=a",
            "if token == 5",
            "password=",
            "design=blue",
            "mailto:ada@example.com and https://ada@example.com:8080/a:b@c",
            "100 % sure",
            "+49 30 1234567",
            "oak_tree",
            "AKIA",
        ] {
            assert!(!is_in(text), "{text}");
        }
    }

    #[test]
    fn numbers_may_be_card_numbers() {
        assert!(is_card(4_111_111_111_111_111));
        assert!(!is_card(4_111_111_111_111_112));
        assert!(!is_card(1_764_000_000_000));
        assert!(!is_card(42));
    }
}
