//! Frozen bytes: `vectors/*.json`. What is signed, hashed or stored must not change by accident, and must
//! be what others compute. The expected values were made by another implementation (Python's `hmac`,
//! `hashlib` and `json`, and `cryptography` for Ed25519), not by this crate.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use ed25519_dalek::SigningKey;
use oakallow_policy::audit::{Chained, Event, Head};
use oakallow_policy::call::CallNames;
use oakallow_policy::canonical::{hex, json_bytes, sha256, unhex};
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::{Kind, new_id, new_reference};
use oakallow_policy::token::{self, Claims, TokenKey};
use oakallow_policy::wire::{Bundle, PublicKey, Purpose, Signed, StillCurrent};
use oakallow_policy::{Tool, strict_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn read<T: for<'de> Deserialize<'de>>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn bytes<const N: usize>(digits: &str) -> [u8; N] {
    unhex(digits).unwrap().try_into().unwrap()
}

#[derive(Deserialize)]
struct TokenVector {
    master: String,
    epoch: u32,
    audience: String,
    kid: String,
    key: String,
    header: String,
    claims: String,
    token: String,
}

#[test]
fn tokens() {
    for v in read::<Vec<TokenVector>>(include_str!("vectors/token.json")) {
        let key = TokenKey::derive(&bytes(&v.master), v.epoch, &v.audience);
        assert_eq!(key.kid(), v.kid);
        assert_eq!(hex(key.expose()), v.key);
        let claims: Claims = read(&v.claims);
        assert_eq!(serde_json::to_string(&claims).unwrap(), v.claims);
        let token = token::sign(&claims, &key);
        assert_eq!(token, v.token);
        let part = |i: usize| {
            let part = oakallow_policy::canonical::unbase64url(token.split('.').nth(i).unwrap()).unwrap();
            String::from_utf8(part).unwrap()
        };
        assert_eq!((part(0), part(1)), (v.header, v.claims));
        assert_eq!(token::verify(&token, &[key], &v.audience, claims.iat), Ok(claims));
    }
}

#[derive(Deserialize)]
struct AuditVector {
    source: String,
    chain: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    event: Event,
    canonical: String,
    hash: String,
}

#[test]
fn audit_events_and_their_chain() {
    let vector: AuditVector = read(include_str!("vectors/audit.json"));
    let mut head = Head::default();
    for link in vector.chain {
        let (chained, canonical, next) = Chained::append(&vector.source, &head, link.event).unwrap();
        assert_eq!(String::from_utf8(canonical).unwrap(), link.canonical);
        assert_eq!(next.hash, link.hash);
        let reread: Chained = read(&link.canonical);
        assert_eq!(reread, chained);
        assert_eq!(reread.follow(&vector.source, &head).unwrap(), next);
        head = next;
    }
}

#[test]
fn an_attribute_that_the_hash_does_not_cover_is_refused() {
    let vector: AuditVector = read(include_str!("vectors/audit.json"));
    let mut event: Value = read(&vector.chain[0].canonical);
    event["subject"] = "more".into();
    let refused = serde_json::from_value::<Chained>(event).unwrap_err().to_string();
    assert!(refused.contains("unknown field `subject`"), "{refused}");
    let mut event: Value = read(&vector.chain[0].canonical);
    event["specversion"] = "0.3".into();
    assert!(serde_json::from_value::<Chained>(event).is_err());
}

#[derive(Deserialize)]
struct FingerprintVector {
    definition: Definition,
    calls: Vec<FingerprintCall>,
}

#[derive(Deserialize)]
struct Definition {
    tool: Tool,
    hash: String,
}

#[derive(Deserialize)]
struct FingerprintCall {
    call: CallNames,
    route: String,
    definition_hash: Option<String>,
    args: Value,
    canonical: String,
    fingerprint: String,
}

#[test]
fn fingerprints() {
    let vector: FingerprintVector = read(include_str!("vectors/fingerprint.json"));
    assert_eq!(hex(&vector.definition.tool.definition_hash().unwrap()), vector.definition.hash);
    for v in vector.calls {
        let definition = v.definition_hash.as_deref().map(bytes);
        let fingerprint = Fingerprint::of(&v.call.as_call(), &v.route, definition, &v.args).unwrap();
        assert_eq!(fingerprint.to_string(), v.fingerprint);
        assert_eq!(hex(&sha256(v.canonical.as_bytes())), v.fingerprint);
    }
}

#[derive(Deserialize)]
struct SignedVector {
    seed: String,
    kid: String,
    public_key: String,
    signed: Vec<SignedText>,
}

#[derive(Deserialize)]
struct SignedText {
    purpose: String,
    payload: String,
    signature: String,
}

fn check<T: Serialize + for<'de> Deserialize<'de>>(v: &SignedVector, text: &SignedText, purpose: Purpose) {
    let key = SigningKey::from_bytes(&bytes(&v.seed));
    let public = PublicKey::of(&v.kid, &key);
    assert_eq!(public.public_key, v.public_key);
    let value: T = read(&text.payload);
    let sealed = Signed::seal(purpose, &value, &v.kid, &key).unwrap();
    assert_eq!((&sealed.payload, &sealed.signature), (&text.payload, &text.signature));
    sealed.open::<T>(purpose, &public).unwrap();
    for other in [Purpose::Bundle, Purpose::StillCurrent, Purpose::Head] {
        assert_eq!(sealed.open::<T>(other, &public).is_ok(), other == purpose, "{other:?}");
    }
    let altered = Signed { payload: format!("{} ", sealed.payload), ..sealed };
    assert!(altered.open::<T>(purpose, &public).is_err());
}

#[test]
fn signed_bundles_and_heads() {
    let vector: SignedVector = read(include_str!("vectors/signed.json"));
    for text in &vector.signed {
        match text.purpose.as_str() {
            "bundle" => check::<Bundle>(&vector, text, Purpose::Bundle),
            "still_current" => check::<StillCurrent>(&vector, text, Purpose::StillCurrent),
            "head" => check::<Head>(&vector, text, Purpose::Head),
            other => panic!("{other}"),
        }
    }
}

#[derive(Deserialize)]
struct CanonicalVector {
    about: String,
    input: String,
    canonical: String,
}

#[test]
fn canonical_json() {
    for v in read::<Vec<CanonicalVector>>(include_str!("vectors/canonical.json")) {
        let value = strict_json::parse(v.input.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(json_bytes(&value).unwrap()).unwrap(), v.canonical, "{}", v.about);
    }
}

#[derive(Deserialize)]
struct IdVector {
    ids: Vec<IdOf>,
    references: Vec<ReferenceOf>,
}

#[derive(Deserialize)]
struct IdOf {
    kind: String,
    unix_ms: u64,
    random: String,
    id: String,
}

#[derive(Deserialize)]
struct ReferenceOf {
    random: String,
    reference: String,
}

#[test]
fn ids_and_references() {
    let vector: IdVector = read(include_str!("vectors/id.json"));
    let kinds = [Kind::Approval, Kind::Event, Kind::Txn, Kind::Token];
    for v in vector.ids {
        let kind = *kinds.iter().find(|k| k.prefix() == v.kind).unwrap();
        assert_eq!(new_id(kind, v.unix_ms, bytes(&v.random)), v.id);
    }
    for v in vector.references {
        assert_eq!(new_reference(bytes(&v.random)), v.reference);
    }
}
