//! Who a client is by its certificate, which TLS has verified: the one URI among its alternative names (a SPIFFE
//! ID, say), else the one DNS name. Never the common name, which nobody has to check before signing.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use oakallow_policy::id::Name;
use oakallow_policy::principal;
use oakallow_policy::timestamp::UnixMs;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::tls::not_after;

/// A client's certificate.
pub struct Peer {
    /// Whose it is; `None` when it names nobody, or several.
    pub principal: Option<Name>,
    pub(super) not_after: UnixMs,
    chain: Vec<CertificateDer<'static>>,
    /// When the certificates between it and its authority end.
    ends: Vec<UnixMs>,
    /// The authorities that were last found to stand for it, and how many of those between had ended then.
    believed_by: Mutex<Option<([u8; 32], usize)>>,
}

impl Peer {
    /// Of the chain that a client has shown.
    #[must_use]
    pub fn new(chain: &[CertificateDer<'static>]) -> Option<Self> {
        let leaf = chain.first()?;
        Some(Self {
            principal: named(leaf),
            not_after: not_after(leaf)?,
            chain: chain.to_vec(),
            ends: chain.iter().skip(1).filter_map(|der| not_after(der)).collect(),
            believed_by: Mutex::new(None),
        })
    }

    /// When it ends, or the next one between it and its authority does: then there may be another chain, or none.
    #[must_use]
    pub fn next_end(&self, now: UnixMs) -> UnixMs {
        self.ends.iter().copied().filter(|end| *end > now).fold(self.not_after, UnixMs::min)
    }

    /// Asks `verify` once for each set of authorities, and again when a certificate of the chain has ended since.
    pub(super) fn is_believed_by(
        &self,
        (authorities, now): ([u8; 32], UnixMs),
        verify: impl FnOnce(&CertificateDer<'_>, &[CertificateDer<'_>]) -> bool,
    ) -> bool {
        let mut believed_by = self.believed_by.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = (authorities, self.ends.iter().filter(|end| **end <= now).count());
        let believed = *believed_by == Some(asked)
            || self.chain.split_first().is_some_and(|(leaf, more)| verify(leaf, more));
        *believed_by = believed.then_some(asked);
        believed
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("principal", &self.principal).finish_non_exhaustive()
    }
}

fn named(der: &[u8]) -> Option<Name> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let uris: Vec<&str> = names.iter().filter_map(uri).collect();
    let hosts: Vec<&str> = names.iter().filter_map(dns).collect();
    match (uris.as_slice(), hosts.as_slice()) {
        // Without a scheme it could be taken for the DNS name of somebody else.
        ([uri], _) if has_scheme(uri) => principal::of_certificate(uri).ok(),
        ([], [host]) if !host.contains('*') => principal::of_certificate(&host.to_ascii_lowercase()).ok(),
        _ => None,
    }
}

/// RFC 3986 section 3.1.
fn has_scheme(uri: &str) -> bool {
    let may = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    uri.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(may) && !rest.is_empty()
    })
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

fn dns<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::DNSName(host) => Some(host),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_chain_is_looked_at_again_when_a_certificate_in_it_has_ended() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2030, 1, 1);
        let between = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let params = CertificateParams::new(vec!["bot.corp".to_owned()]).unwrap();
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &between).unwrap();
        let peer = Peer::new(&[leaf.der().clone(), between.der().clone()]).unwrap();
        let (authorities, end) = ([1; 32], 1_893_456_000_000);
        let asked = std::cell::Cell::new(0);
        let believed = |now: UnixMs| {
            peer.is_believed_by((authorities, now), |_, _| {
                asked.set(asked.get() + 1);
                now < end
            })
        };
        assert!(peer.next_end(end - 1) == end && peer.next_end(end) > end);
        assert!(believed(end - 2) && believed(end - 1));
        assert_eq!(asked.get(), 1, "once for both");
        assert!(!believed(end) && !believed(end + 1));
        assert_eq!(asked.get(), 3, "who is not believed is asked about each time");
    }
}
