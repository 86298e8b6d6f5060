//! Keys of issuers (RFC 7517), and signatures under them. The cryptography is ring's, as everywhere else.

use std::path::Path;

use oakallow_policy::canonical::{sha256, unbase64url};
use oakallow_policy::strict_json;
use ring::agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey};
use ring::rand::SystemRandom;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

use crate::config::Algorithm;

/// More keys than any issuer has at a time.
const KEYS_MAX: usize = 100;

/// A public key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    material: Material,
    /// What tells it from every other, whatever it is called.
    pub(super) thumbprint: [u8; 32],
}

#[derive(Debug, Clone)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The keys of a set that can be used. Those of other kinds are left out, as the standard has it (section 5).
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let value = strict_json::parse(bytes).map_err(|e| e.to_string())?;
    let keys = value.get("keys").and_then(Value::as_array).ok_or("it is no JWK set: there are no `keys`")?;
    if keys.len() > KEYS_MAX {
        return Err(format!("it has more than {KEYS_MAX} keys"));
    }
    let usable: Vec<Key> = keys.iter().filter_map(|key| Key::of(key.as_object()?)).collect();
    if usable.is_empty() { Err("none of its keys can be used".to_owned()) } else { Ok(usable) }
}

/// Whether a file holds keys that can be used.
pub fn check_file(file: &Path) -> Result<(), String> {
    let fail = |problem: String| format!("`{}`: {problem}", file.display());
    let bytes = std::fs::read(file).map_err(|e| fail(e.to_string()))?;
    parse(&bytes).map(drop).map_err(fail)
}

impl Key {
    fn of(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
        if jwk.get("key_ops").is_some_and(|ops| !verifies(ops)) {
            return None;
        }
        let bytes = |name: &str| text(name).and_then(unbase64url);
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            // What verifies takes no other; a key that can never verify is none.
            ("RSA", _) => Material::Rsa { n: bytes("n").filter(|n| has_fair_size(n))?, e: bytes("e")? },
            ("EC", Some("P-256")) => Material::P256(point(32).filter(|p| is_on_curve(&ECDH_P256, p))?),
            ("EC", Some("P-384")) => Material::P384(point(48).filter(|p| is_on_curve(&ECDH_P384, p))?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        // A name that we do not know is no reason to use the key for something else.
        let algorithm = match text("alg") {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        let thumbprint = sha256(format!("{material:?}").as_bytes());
        Some(Self { kid: text("kid").map(str::to_owned), algorithm, material, thumbprint })
    }

    /// Whether a token may name it: with its id, for what it is made for.
    fn fits(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        let named = kid.is_none_or(|kid| self.kid.as_deref() == Some(kid));
        named && self.algorithm.is_none_or(|own| own == algorithm) && self.way(algorithm).is_some()
    }

    fn way(&self, algorithm: Algorithm) -> Option<Way<'_>> {
        use Algorithm as A;
        Some(match (&self.material, algorithm) {
            (Material::Rsa { n, e }, rsa) => {
                let way = match rsa {
                    A::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    A::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    A::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    A::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
                    A::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
                    A::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return None,
                };
                Way::Rsa(RsaPublicKeyComponents { n, e }, way)
            }
            (Material::P256(point), A::ES256) => Way::Point(point, &signature::ECDSA_P256_SHA256_FIXED),
            (Material::P384(point), A::ES384) => Way::Point(point, &signature::ECDSA_P384_SHA384_FIXED),
            (Material::Ed25519(point), A::EdDSA) => Way::Point(point, &signature::ED25519),
            _ => return None,
        })
    }

    /// Whether it made this signature, in this way.
    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match self.way(algorithm) {
            Some(Way::Rsa(key, way)) => key.verify(way, signed, signature).is_ok(),
            Some(Way::Point(key, way)) => UnparsedPublicKey::new(way, key).verify(signed, signature).is_ok(),
            None => false,
        }
    }
}

/// 2048 to 8192 bits.
fn has_fair_size(modulus: &[u8]) -> bool {
    let digits = modulus.iter().skip_while(|byte| **byte == 0);
    let first = digits.clone().next().copied().unwrap_or_default();
    let bits = digits.count() * 8 - first.leading_zeros() as usize % 8;
    (2048..=8192).contains(&bits)
}

/// Whether an agreement with the key is possible: what is not on the curve is refused there.
fn is_on_curve(curve: &'static agreement::Algorithm, point: &[u8]) -> bool {
    let own = EphemeralPrivateKey::generate(curve, &SystemRandom::new());
    own.and_then(|own| {
        agreement::agree_ephemeral(own, &agreement::UnparsedPublicKey::new(curve, point), |_| ())
    })
    .is_ok()
}

enum Way<'k> {
    Rsa(RsaPublicKeyComponents<&'k Vec<u8>>, &'static signature::RsaParameters),
    Point(&'k [u8], &'static dyn VerificationAlgorithm),
}

/// The one key that a token can mean. Without an id that is the only one of its kind.
pub(super) fn meant<'k>(keys: &'k [Key], kid: Option<&str>, algorithm: Algorithm) -> Option<&'k Key> {
    let mut fitting = keys.iter().filter(|key| key.fits(kid, algorithm));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Some(key),
        _ => None,
    }
}
