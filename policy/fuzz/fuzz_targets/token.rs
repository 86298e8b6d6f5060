//! Tokens: no panic; nothing is accepted but what was signed. Where the input does not carry a signature
//! that fits, a second pass signs the claims in it, so that the checks behind the signature are reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oakallow_policy::token::{self, Claims, LIFETIME_S_MAX, SKEW_S, TokenKey};

const NOW_S: u64 = 1_785_000_000;

fuzz_target!(|bytes: &[u8]| {
    let key = TokenKey::derive(&[7; 32], 1, "demo-tools");
    let keys = [key.clone(), TokenKey::derive(&[7; 32], 2, "demo-tools")];
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = token::claimed_audience(text);
        assert!(token::verify(text, &keys, "demo-tools", NOW_S).is_err(), "nobody has the key");
    }
    let Ok(claims) = serde_json::from_slice::<Claims>(bytes) else { return };
    let signed = token::sign(&claims, &key);
    let Ok(read) = token::verify(&signed, &keys, "demo-tools", NOW_S) else { return };
    assert_eq!(read.aud, "demo-tools");
    assert!(read.exp <= read.iat.saturating_add(LIFETIME_S_MAX));
    assert!(NOW_S < read.exp.saturating_add(SKEW_S), "expired");
    assert!(NOW_S.saturating_add(SKEW_S) >= read.nbf.max(read.iat), "not yet valid");
    assert_eq!(Claims { exp: read.exp, ..claims }, read);
});
