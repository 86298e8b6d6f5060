//! TLS to tool servers: always verified, and made anew when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::link::{Protocol, TlsFiles};

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
        self.name()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let broken = |e: &dyn std::fmt::Display| TlsError(format!("TLS: {e}"));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| broken(&e))?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
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

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(ca) => {
                for certificate in certificates(ca)? {
                    let refused = |e| TlsError(format!("`{}`: {e}", ca.display()));
                    roots.add(certificate).map_err(refused)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TlsError(
                        "this system trusts no authority: name one as `upstream_tls.ca`".to_owned(),
                    ));
                }
            }
        }
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused =
        |e: &dyn std::fmt::Display| TlsError(format!("`{}`: no certificates in PEM: {e}", file.display()));
    let read = CertificateDer::pem_file_iter(file).map_err(|e| refused(&e))?;
    let read = read.collect::<Result<Vec<_>, _>>().map_err(|e| refused(&e))?;
    if read.is_empty() { Err(refused(&"it has none")) } else { Ok(read) }
}
