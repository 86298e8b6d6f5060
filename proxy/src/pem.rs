//! Certificates in PEM. The errors name the file and quote nothing of it.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Why a file is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{file}`: {problem}")]
pub struct PemError {
    file: String,
    problem: String,
}

impl PemError {
    /// Of this file.
    pub fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.display().to_string(), problem: problem.into() }
    }
}

/// What is in a file.
pub fn read(file: &Path) -> Result<Vec<u8>, PemError> {
    std::fs::read(file).map_err(|e| PemError::new(file, e.to_string()))
}

/// Those in a file with this content; there is at least one.
pub fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(PemError::new(file, "there is no certificate in PEM in it")),
    }
}

/// The same, as authorities.
pub fn authorities(file: &Path, pem: &[u8]) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, pem)? {
        roots.add(certificate).map_err(|e| PemError::new(file, e.to_string()))?;
    }
    Ok(roots)
}
