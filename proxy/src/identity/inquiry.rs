//! How an issuer is asked: with little patience, by no detour, and believing its own authorities where it has some.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use oakallow_policy::canonical::sha256;
use reqwest::{Certificate, Client, ClientBuilder};

use crate::causes::Causes;
use crate::pem::{self, PemError};

/// No answer takes longer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// No description and no set of keys is larger.
const BYTES_MAX: usize = 256 * 1024;

/// The way to an issuer's servers.
pub(super) struct Way {
    /// Trusts whom the system trusts.
    shared: Client,
    /// Trusted instead.
    ca: Option<PathBuf>,
    /// The client for these, by the SHA-256 of what the file had in it.
    own: Mutex<Option<([u8; 32], Client)>>,
}

/// The client for all issuers without authorities of their own.
pub(super) fn client() -> Result<Client, reqwest::Error> {
    builder().build()
}

fn builder() -> ClientBuilder {
    let builder = Client::builder().timeout(TIMEOUT).connect_timeout(TIMEOUT);
    // What the environment names for other programs could put its own keys in their place.
    builder.redirect(reqwest::redirect::Policy::none()).no_proxy()
}

impl Way {
    pub(super) fn new(shared: &Client, ca: Option<PathBuf>) -> Self {
        Self { shared: shared.clone(), ca, own: Mutex::default() }
    }

    /// What is at this address.
    pub(super) async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let shown = url.split('?').next().unwrap_or_default();
        let request = self.client().await?.get(url).header("accept", "application/json");
        let answer = request.send().await.map_err(causes)?;
        if !answer.status().is_success() {
            return Err(format!("{shown} answers {}", answer.status()));
        }
        let mut body = Vec::new();
        let mut parts = answer.bytes_stream();
        while let Some(part) = parts.next().await {
            body.extend_from_slice(&part.map_err(causes)?);
            if body.len() > BYTES_MAX {
                return Err(format!("{shown} answers more than {BYTES_MAX} bytes"));
            }
        }
        Ok(body)
    }

    /// The file is looked at each time that somebody asks, so that another authority takes no restart.
    async fn client(&self) -> Result<Client, String> {
        let Some(ca) = &self.ca else { return Ok(self.shared.clone()) };
        let text = tokio::fs::read(ca).await.map_err(|e| PemError::new(ca, e.to_string()).to_string())?;
        let content = sha256(&text);
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = own.as_ref().filter(|(known, _)| *known == content) {
            return Ok(client.clone());
        }
        // What connections the other one has were made under other authorities.
        let client = trusting(ca, &text)?;
        *own = Some((content, client.clone()));
        Ok(client)
    }
}

fn trusting(ca: &Path, text: &[u8]) -> Result<Client, String> {
    pem::authorities(ca, text).map_err(|e| e.to_string())?;
    let all = pem::certificates(ca, text).map_err(|e| e.to_string())?;
    let all = all.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    builder().tls_certs_only(all.map_err(causes)?).build().map_err(causes)
}

/// Without the address, which may have a query.
fn causes(error: reqwest::Error) -> String {
    Causes(&error.without_url()).to_string()
}
