//! Authorities that issue certificates, and clients that trust one.

use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use reqwest::{Client, ClientBuilder, Identity};

use super::PATIENCE;

/// An authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a server on this machine.
    pub(crate) fn server(&self) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// For a client with these alternative names: URIs and DNS names; its common name is `ada`, an agent's.
    pub(crate) fn client(&self, uris: &[&str], hosts: &[&str]) -> Issued {
        let mut params = CertificateParams::default();
        let text = |text: &&str| Ia5String::try_from(*text).expect("ASCII");
        params.distinguished_name.push(DnType::CommonName, "ada");
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI(text(uri))));
        params.subject_alt_names.extend(hosts.iter().map(|host| SanType::DnsName(text(host))));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts it, and may have a certificate of its own.
    pub(crate) fn trusted(&self, own: Option<&Issued>) -> Client {
        self.builder(own).build().expect("a client")
    }

    pub(crate) fn builder(&self, own: Option<&Issued>) -> ClientBuilder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root = reqwest::Certificate::from_pem(self.pem().as_bytes()).expect("a certificate");
        let builder = Client::builder().timeout(PATIENCE).no_proxy().tls_certs_only([root]);
        match own {
            None => builder,
            Some(own) => {
                let pem = format!("{}{}", own.key, own.certificate);
                builder.identity(Identity::from_pem(pem.as_bytes()).expect("an identity"))
            }
        }
    }
}

impl Issued {
    /// Written to a folder, as `tls.crt` and `tls.key`.
    pub(crate) fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&certificate, &self.certificate).expect("a file");
        std::fs::write(&key, &self.key).expect("a file");
        (certificate, key)
    }
}
