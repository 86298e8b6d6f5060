//! TLS to tool servers: always verified, and made anew when its files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::authorities::SYSTEM;
use super::link::{Protocol, TlsFiles};
use crate::pem::{self, PemError};

/// Why there is no TLS; the text names the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl TlsFiles {
    /// The name that the tool server's certificate must have.
    pub(super) fn name(&self) -> Result<ServerName<'static>, TlsError> {
        let refused = |_| TlsError(format!("`server_name`: `{}` is no name of a server", self.server_name));
        ServerName::try_from(self.server_name.clone()).map_err(refused)
    }

    /// The files that it is made of.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let client = self.client.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(client)
    }

    /// Reads the files.
    pub fn load(&self, protocol: Protocol) -> Result<Arc<ClientConfig>, TlsError> {
        self.load_since(protocol, None)
    }

    /// The same, with the system's authorities as they are now.
    pub(super) fn load_again(&self, protocol: Protocol) -> Result<Arc<ClientConfig>, TlsError> {
        self.load_since(protocol, Some(Instant::now()))
    }

    fn load_since(
        &self,
        protocol: Protocol,
        not_before: Option<Instant>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        self.name()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let broken = |e: &dyn std::fmt::Display| TlsError(format!("TLS: {e}"));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| broken(&e))?
            .with_root_certificates(self.roots(not_before)?);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = pem::certificates(certificate, &pem::read(certificate)?)?;
                let file = key.display();
                let key = PrivateKeyDer::from_pem_file(key);
                // The error may not quote the file: it says which kind of thing is missing.
                let key = key.map_err(|e| TlsError(format!("`{file}`: no private key in PEM: {e}")))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| {
                    TlsError(format!(
                        "`{}`: not the certificate of the key `{file}`: {e}",
                        certificate.display()
                    ))
                })?
            }
        };
        config.alpn_protocols = match protocol {
            Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        Ok(Arc::new(config))
    }

    fn roots(&self, not_before: Option<Instant>) -> Result<Arc<RootCertStore>, TlsError> {
        if let Some(ca) = &self.ca {
            return Ok(Arc::new(pem::authorities(ca, &pem::read(ca)?)?));
        }
        let roots = SYSTEM.store(not_before);
        if roots.is_empty() {
            return Err(TlsError(
                "this system trusts no authority: name one as `upstream_tls.ca`".to_owned(),
            ));
        }
        Ok(roots)
    }
}

impl From<PemError> for TlsError {
    fn from(e: PemError) -> Self {
        Self(format!("no certificates in PEM: {e}"))
    }
}
