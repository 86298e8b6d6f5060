//! TLS of a listener: what its files say, taken up again when they change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use oakallow_policy::canonical::sha256;
use oakallow_policy::timestamp::UnixMs;
use pingora::listeners::tls::Acceptor;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock;
use crate::config::{Clients, Tls};
use crate::listen::peer::Peer;
use crate::pem::{PemError, authorities, certificates, read};
use crate::watch::Look;

/// What is spoken over TLS: HTTP/2 where the client can.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS of a listener that runs.
pub struct TlsState {
    files: Tls,
    loaded: ArcSwap<Loaded>,
    /// Content that was refused, so that it is told once.
    refused: Mutex<Option<[u8; 32]>>,
}

/// What the files said.
pub(super) struct Loaded {
    pub(super) acceptor: Acceptor,
    trust: Option<Trust>,
    content: [u8; 32],
}

/// Whose certificates are believed.
struct Trust {
    verifier: Arc<dyn ClientCertVerifier>,
    /// SHA-256 of the file.
    content: [u8; 32],
}

/// What became of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Nothing new.
    Unchanged,
    /// In force for new connections.
    Applied,
    /// Not good: what was in force still is.
    Refused,
}

/// The content of all files.
struct Content {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    ca: Option<Vec<u8>>,
}

impl Content {
    fn read(files: &Tls) -> Result<Self, PemError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?.into(),
            ca: files.clients.as_ref().map(|c| read(&c.ca)).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let ca = self.ca.as_deref().map(sha256).unwrap_or_default();
        sha256(&[sha256(&self.certificate), sha256(&self.key), ca].concat())
    }
}

impl TlsState {
    /// Reads the files, and refuses what does not fit together.
    pub fn load(files: &Tls) -> Result<Self, PemError> {
        let loaded = Loaded::of(files, &Content::read(files)?)?;
        Ok(Self { files: files.clone(), loaded: ArcSwap::from_pointee(loaded), refused: Mutex::default() })
    }

    /// Reads them again. What is refused is told once, and whenever somebody asks.
    pub fn reload(&self, look: Look) -> Reload {
        let content = Content::read(&self.files);
        let digest = content.as_ref().map_or([0; 32], Content::digest);
        if digest == self.loaded.load().content {
            *self.told() = None;
            return Reload::Unchanged;
        }
        match content.and_then(|content| Loaded::of(&self.files, &content)) {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                *self.told() = None;
                tracing::info!(certificate = %self.files.certificate.display(), "certificates were reloaded");
                Reload::Applied
            }
            Err(_) if look == Look::Due && *self.told() == Some(digest) => Reload::Unchanged,
            Err(problem) => {
                *self.told() = Some(digest);
                tracing::error!(%problem, "certificates are not accepted: those that run stay");
                Reload::Refused
            }
        }
    }

    /// Whether the files are not accepted as they are now.
    pub fn is_refused(&self) -> bool {
        self.told().is_some()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Option<[u8; 32]>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Whether a client's certificate is good now. It was at its handshake; authorities may have gone since.
    #[must_use]
    pub fn believes(&self, peer: &Peer) -> bool {
        let now = clock::now_ms();
        if now >= peer.not_after {
            return false;
        }
        let loaded = self.loaded.load();
        let Some(trust) = &loaded.trust else { return false };
        peer.is_believed_by((trust.content, now), |leaf, more| {
            let now = UnixTime::since_unix_epoch(Duration::from_millis(now));
            trust.verifier.verify_client_cert(leaf, more, now).is_ok()
        })
    }
}

impl Loaded {
    fn of(files: &Tls, content: &Content) -> Result<Self, PemError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&files.certificate, &content.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| PemError::new(&files.key, "there is no private key in PEM in it"))?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                PemError::new(&files.key, "the key is not that of the certificate")
            }
            other => PemError::new(&files.certificate, other.to_string()),
        })?;
        let trust = match (&files.clients, &content.ca) {
            (Some(clients), Some(ca)) => Some(Trust::of(clients, ca, provider.clone())?),
            _ => None,
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| PemError::new(&files.certificate, e.to_string()))?;
        let builder = match &trust {
            Some(trust) => builder.with_client_cert_verifier(trust.verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|e| PemError::new(&files.certificate, e.to_string()))?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let acceptor = Acceptor::from_server_config(Arc::new(config));
        Ok(Self { acceptor, trust, content: content.digest() })
    }
}

impl Trust {
    fn of(clients: &Clients, pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Self, PemError> {
        let fail = |problem: String| PemError::new(&clients.ca, problem);
        if certificates(&clients.ca, pem)?.iter().any(|der| !is_authority(der)) {
            // Whoever has its key could sign others.
            return Err(fail("a certificate in it is no authority's (it has not CA:TRUE)".to_owned()));
        }
        let roots = authorities(&clients.ca, pem)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|e| fail(e.to_string()))?;
        Ok(Self { verifier, content: sha256(pem) })
    }
}

/// For how many more days all certificates in a file are good; fewer than none when one has ended.
pub fn days_left(file: &Path) -> Result<i64, PemError> {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    let milliseconds = |at: UnixMs| i64::try_from(at).unwrap_or(i64::MAX);
    let all = certificates(file, &read(file)?)?;
    let end = all.iter().filter_map(|der| not_after(der)).min();
    let end = end.ok_or_else(|| PemError::new(file, "the certificate cannot be read"))?;
    Ok(milliseconds(end).saturating_sub(milliseconds(clock::now_ms())).div_euclid(DAY_MS))
}

/// Whether a certificate may sign others (RFC 5280 section 4.2.1.9).
fn is_authority(der: &[u8]) -> bool {
    let constraints = X509Certificate::from_der(der)
        .ok()
        .and_then(|(_, c)| c.basic_constraints().ok()?.map(|c| c.value.ca));
    constraints.unwrap_or(false)
}

/// When a certificate ends.
pub(super) fn not_after(der: &[u8]) -> Option<UnixMs> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()?.checked_mul(1000)
}
