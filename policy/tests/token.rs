//! Execution tokens: each way in which one is not accepted, and the edges of time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use hmac::{Hmac, KeyInit as _, Mac as _};
use oakallow_policy::canonical::{base64url, unbase64url};
use oakallow_policy::token::{self, Binding, Claims, LIFETIME_S_MAX, SKEW_S, TokenError, TokenKey};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;

const AUDIENCE: &str = "demo-tools";
const NOW_S: u64 = 1_785_000_000;

fn key() -> TokenKey {
    TokenKey::derive(&[7; 32], 1, AUDIENCE)
}

fn claims() -> Claims {
    Claims {
        iss: "oakallow".into(),
        aud: AUDIENCE.into(),
        sub: "agent-1".into(),
        org: "demo".into(),
        tenant: Some("acme".into()),
        tool: "restart_service".into(),
        resource: Some("server-prod-01".into()),
        method: None,
        htm: Some("POST".into()),
        htu: Some("http://tools/restart_service".into()),
        bnd: Binding::Request,
        bdh: Some("47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU".into()),
        ah: None,
        apr: None,
        pol: 7,
        lvl: "tenant_tool".into(),
        jti: "tok_1".into(),
        txn: "txn_1".into(),
        iat: NOW_S,
        nbf: NOW_S,
        exp: NOW_S + LIFETIME_S_MAX,
    }
}

fn verify(token: &str) -> Result<Claims, TokenError> {
    token::verify(token, &[key()], AUDIENCE, NOW_S)
}

/// A token with any header and claims, signed like the real ones: what a holder of the key could make.
fn forge(header: &Value, claims: &Value, key: &TokenKey) -> String {
    forge_text(&header.to_string(), &claims.to_string(), key)
}

fn forge_text(header: &str, claims: &str, key: &TokenKey) -> String {
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", base64url(&mac.finalize().into_bytes()))
}

fn header(alg: &str) -> Value {
    json!({"typ": token::TYPE, "alg": alg, "kid": "1.demo-tools"})
}

fn as_value(claims: &Claims) -> Value {
    serde_json::to_value(claims).unwrap()
}

#[test]
fn what_was_signed_is_accepted() {
    assert_eq!(verify(&token::sign(&claims(), &key())), Ok(claims()));
    assert_eq!(verify(&forge(&header("HS256"), &as_value(&claims()), &key())), Ok(claims()));
}

#[test]
fn another_algorithm_is_refused_whatever_the_signature() {
    for alg in ["none", "None", "", "RS256", "ES256", "EdDSA", "HS384", "HS512", "hs256"] {
        let token = forge(&header(alg), &as_value(&claims()), &key());
        assert_eq!(verify(&token), Err(TokenError::Algorithm), "{alg}");
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(verify(&unsigned), Err(TokenError::Algorithm), "{alg}");
    }
    let other_type = json!({"typ": "JWT", "alg": "HS256", "kid": "1.demo-tools"});
    assert_eq!(verify(&forge(&other_type, &as_value(&claims()), &key())), Err(TokenError::Algorithm));
}

#[test]
fn a_header_that_says_more_is_refused() {
    for (name, value) in [("crit", json!(["exp"])), ("jwk", json!({})), ("jku", json!("http://x"))] {
        let mut more = header("HS256");
        more[name] = value;
        assert_eq!(verify(&forge(&more, &as_value(&claims()), &key())), Err(TokenError::Malformed), "{name}");
    }
}

#[test]
fn a_key_speaks_for_its_epoch_and_audience_only() {
    let next = TokenKey::derive(&[7; 32], 2, AUDIENCE);
    let others = TokenKey::derive(&[7; 32], 1, "other-tools");
    let other_org = TokenKey::derive(&[8; 32], 1, AUDIENCE);
    let by = |signer: &TokenKey, keys: &[TokenKey]| {
        token::verify(&token::sign(&claims(), signer), keys, AUDIENCE, NOW_S)
    };
    assert_eq!(by(&next, &[key()]), Err(TokenError::UnknownKey));
    assert_eq!(by(&next, &[key(), next.clone()]), Ok(claims()));
    assert_eq!(by(&key(), &[]), Err(TokenError::UnknownKey));
    assert_eq!(by(&other_org, &[key()]), Err(TokenError::Signature));
    // Its id says whose it is, even for a verifier that holds both.
    assert_eq!(by(&others, &[key(), others.clone()]), Err(TokenError::UnknownKey));
    // The other audience's key under this one's id.
    let disguised = TokenKey::from_bytes("1.demo-tools".into(), *others.expose());
    assert_eq!(by(&disguised, &[key(), others]), Err(TokenError::Signature));
}

#[test]
fn a_token_for_another_audience_is_refused() {
    let elsewhere = Claims { aud: "other-tools".into(), ..claims() };
    assert_eq!(verify(&token::sign(&elsewhere, &key())), Err(TokenError::Audience));
    assert_eq!(token::claimed_audience(&token::sign(&elsewhere, &key())).as_deref(), Some("other-tools"));
}

#[test]
fn each_altered_part_is_refused() {
    let token = token::sign(&claims(), &key());
    let parts: Vec<&str> = token.split('.').collect();
    let other = token::sign(&Claims { tool: "transfer_funds".into(), ..claims() }, &key());
    let others: Vec<&str> = other.split('.').collect();
    let join = |a: &str, b: &str, c: &str| format!("{a}.{b}.{c}");
    assert_eq!(verify(&join(parts[0], others[1], parts[2])), Err(TokenError::Signature));
    assert_eq!(verify(&join(parts[0], parts[1], others[2])), Err(TokenError::Signature));
    assert_eq!(verify(&join(parts[0], parts[1], "")), Err(TokenError::Signature));
    let short = base64url(&unbase64url(parts[2]).unwrap()[..16]);
    assert_eq!(verify(&join(parts[0], parts[1], &short)), Err(TokenError::Signature));
    let respelt =
        forge_text(r#"{"alg":"HS256","typ":"oakallow-exec+jwt","kid":"1.demo-tools"}"#, "{}", &key());
    let respelt = respelt.split('.').next().unwrap();
    assert_eq!(verify(&join(respelt, parts[1], parts[2])), Err(TokenError::Signature));
}

#[test]
fn what_is_not_a_token_is_malformed() {
    let token = token::sign(&claims(), &key());
    for text in ["", ".", "..", "a.b", "a.b.c", &token[1..], &format!("{token}="), &format!("{token}.x")] {
        assert_eq!(verify(text), Err(TokenError::Malformed), "{text}");
    }
    assert_eq!(verify(&"a".repeat(100_000)), Err(TokenError::Malformed));
    let mut more = as_value(&claims());
    more["admin"] = true.into();
    assert_eq!(verify(&forge(&header("HS256"), &more, &key())), Err(TokenError::Malformed));
    let twice = as_value(&claims()).to_string().replacen('{', r#"{"tool":"read","#, 1);
    let twice = forge_text(&header("HS256").to_string(), &twice, &key());
    assert_eq!(verify(&twice), Err(TokenError::Malformed));
}

#[test]
fn a_token_bound_to_a_request_names_the_request() {
    for missing in ["htm", "htu", "bdh"] {
        let mut incomplete = as_value(&claims());
        incomplete.as_object_mut().unwrap().remove(missing);
        assert_eq!(
            verify(&forge(&header("HS256"), &incomplete, &key())),
            Err(TokenError::Malformed),
            "{missing}"
        );
    }
    let unbound = Claims { bnd: Binding::None, htm: None, htu: None, bdh: None, ..claims() };
    assert_eq!(verify(&token::sign(&unbound, &key())), Ok(unbound));
}

#[test]
fn time_has_exact_edges() {
    let token = token::sign(&claims(), &key());
    let at = |now_s| token::verify(&token, &[key()], AUDIENCE, now_s).map(|_| ());
    assert_eq!(at(NOW_S - SKEW_S), Ok(()));
    assert_eq!(at(NOW_S - SKEW_S - 1), Err(TokenError::NotYetValid));
    assert_eq!(at(NOW_S + LIFETIME_S_MAX + SKEW_S - 1), Ok(()));
    assert_eq!(at(NOW_S + LIFETIME_S_MAX + SKEW_S), Err(TokenError::Expired));
    assert_eq!(at(0), Err(TokenError::NotYetValid));
    assert_eq!(at(u64::MAX), Err(TokenError::Expired));
    let later = token::sign(&Claims { nbf: NOW_S + 10, ..claims() }, &key());
    assert_eq!(verify(&later), Err(TokenError::NotYetValid));
}

#[test]
fn no_token_lives_longer_than_allowed() {
    let long = Claims { exp: NOW_S + 3600, ..claims() };
    let signed = verify(&token::sign(&long, &key())).unwrap();
    assert_eq!(signed.exp, NOW_S + LIFETIME_S_MAX);
    assert_eq!(verify(&forge(&header("HS256"), &as_value(&long), &key())), Err(TokenError::Lifetime));
}

#[test]
fn a_key_shows_its_id_and_never_its_bytes() {
    assert_eq!(format!("{:?}", key()), "TokenKey(1.demo-tools)");
}

#[test]
fn reasons_have_stable_names() {
    let names: Vec<String> = [
        TokenError::Malformed,
        TokenError::Algorithm,
        TokenError::UnknownKey,
        TokenError::Signature,
        TokenError::Expired,
        TokenError::NotYetValid,
        TokenError::Lifetime,
        TokenError::Audience,
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    let expected = "malformed unsupported_algorithm unknown_key bad_signature expired not_yet_valid \
                    lifetime_too_long wrong_audience";
    assert_eq!(names.join(" "), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_is_refused(at in any::<prop::sample::Index>(), byte in 0x20u8..0x7f) {
        let token = token::sign(&claims(), &key());
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(verify(&changed).is_ok(), changed == token);
    }

    #[test]
    fn any_cut_or_added_byte_is_refused(at in any::<prop::sample::Index>(), byte in 0x20u8..0x7f) {
        let token = token::sign(&claims(), &key());
        let at = at.index(token.len());
        let mut cut = token.clone();
        cut.remove(at);
        prop_assert!(verify(&cut).is_err());
        let mut added = token;
        added.insert(at, char::from(byte));
        prop_assert!(verify(&added).is_err());
    }
}
