//! The tool server's own secret: put in on the way, so that no agent holds it.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::link::{Inject, Source};

/// Why there is no secret. Never with the secret.
#[derive(Debug, thiserror::Error)]
#[error("`inject`: {0}")]
pub struct InjectError(String);

/// A field with the secret in it.
pub(super) struct Credential {
    header: HeaderName,
    value: ArcSwap<HeaderValue>,
}

impl Credential {
    pub(super) fn new(inject: &Inject) -> Result<Self, InjectError> {
        let value = ArcSwap::from_pointee(inject.value()?);
        Ok(Self { header: inject.header.clone(), value })
    }

    /// Puts it in, in place of whatever the agent sent.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(self.header.clone(), HeaderValue::clone(&self.value.load()));
    }

    pub(super) fn set(&self, value: HeaderValue) {
        self.value.store(Arc::new(value));
    }
}

impl Inject {
    /// The file that it is read from.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match &self.source {
            Source::File(file) => Some(file),
            Source::Env(_) => None,
        }
    }

    /// The field's value, secret and all; marked so that it is not shown and not indexed.
    pub fn value(&self) -> Result<HeaderValue, InjectError> {
        let (place, secret) = match &self.source {
            Source::File(file) => {
                (file.display().to_string(), std::fs::read_to_string(file).map_err(|e| e.to_string()))
            }
            Source::Env(name) => {
                (name.clone(), std::env::var(name).map_err(|_| "the variable is not set".to_owned()))
            }
        };
        let secret = Zeroizing::new(secret.map_err(|problem| InjectError(format!("`{place}`: {problem}")))?);
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(InjectError(format!("`{place}`: the secret is empty")));
        }
        let text = Zeroizing::new(format!("{}{secret}", self.prefix));
        // The type would take other bytes as well, such as the mark that some editors begin a file with.
        let value = HeaderValue::from_str(&text).ok().filter(|_| text.is_ascii());
        let mut value = value
            .ok_or_else(|| InjectError(format!("`{place}`: not one line of visible ASCII characters")))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
