//! Principals whom no key of ours names: an issuer's token or a client's certificate speaks for them.
//!
//! They have namespaces of their own, in which neither an agent nor a key can be created, so that no token and
//! no certificate can pass for one.

use crate::id::{Name, NameError};

/// Before the issuer and the subject of a token.
const TOKEN: &str = "oidc:";
/// Before the name in a certificate.
const CERTIFICATE: &str = "cert:";
/// What an id of an agent does not begin with.
pub const RESERVED: [&str; 2] = [TOKEN, CERTIFICATE];

/// `oidc:<issuer>:<subject>`. The issuer's name has no colon, so two pairs never make one principal.
pub fn of_token(issuer: &str, subject: &str) -> Result<Name, NameError> {
    Name::exact(subject)?;
    Name::exact(&format!("{TOKEN}{issuer}:{subject}"))
}

/// `cert:<name>`: a URI such as `spiffe://…`, or a DNS name.
pub fn of_certificate(name: &str) -> Result<Name, NameError> {
    Name::exact(name)?;
    Name::exact(&format!("{CERTIFICATE}{name}"))
}

/// Whom a token says it speaks for, of a principal that [`of_token`] made; often a person's e-mail.
#[must_use]
pub fn subject_of_token(principal: &str) -> Option<&str> {
    principal.strip_prefix(TOKEN)?.split_once(':').map(|(_, subject)| subject)
}

/// Whether a principal is none of ours: no key speaks for it, or can be revoked.
#[must_use]
pub fn is_external(principal: &str) -> bool {
    RESERVED
        .iter()
        .any(|start| principal.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_principals_stand_apart() {
        assert_eq!(of_token("corp", "ada").unwrap().as_str(), "oidc:corp:ada");
        assert_eq!(of_certificate("spiffe://corp/ada").unwrap().as_str(), "cert:spiffe://corp/ada");
        assert_eq!(subject_of_token("oidc:corp:a:b@c.example"), Some("a:b@c.example"));
        assert_eq!(subject_of_token("cert:a:b"), None);
        for ours in ["oidc:corp:ada", "OIDC:x", "cert:a"] {
            assert!(is_external(ours), "{ours}");
        }
        for other in ["ada", "key_1", "oidc", "certify:a", "ö", ""] {
            assert!(!is_external(other), "{other}");
        }
    }

    #[test]
    fn a_subject_that_is_no_name_is_nobody() {
        for subject in ["", " ", " ada", "ada\n", "a\u{202e}b", &"x".repeat(2_000)] {
            assert!(of_token("corp", subject).is_err(), "{subject:?}");
        }
    }
}
