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
    /// The authorities that were last found to stand for it.
    believed_by: Mutex<Option<[u8; 32]>>,
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
            believed_by: Mutex::new(None),
        })
    }

    /// Asks `verify` once for each set of authorities.
    pub(super) fn is_believed_by(
        &self,
        authorities: [u8; 32],
        verify: impl FnOnce(&CertificateDer<'_>, &[CertificateDer<'_>]) -> bool,
    ) -> bool {
        let mut believed_by = self.believed_by.lock().unwrap_or_else(PoisonError::into_inner);
        let believed = *believed_by == Some(authorities)
            || self.chain.split_first().is_some_and(|(leaf, more)| verify(leaf, more));
        *believed_by = believed.then_some(authorities);
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
        ([uri], _) => principal::of_certificate(uri).ok(),
        ([], [host]) if !host.contains('*') => principal::of_certificate(&host.to_ascii_lowercase()).ok(),
        _ => None,
    }
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
