//! Where clients get tokens for this proxy: protected resource metadata (RFC 9728), which MCP clients look for.

use http::HeaderValue;
use http::request::Parts;
use http::uri::Authority;
use serde_json::{Value, json};

use crate::config::Config;
use crate::listen::Listener;

/// Before the path of the resource (RFC 9728 section 3).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// A listener that takes tokens, as a client calls it.
pub struct Resource<'a> {
    base: String,
    listener: &'a Listener,
}

impl<'a> Resource<'a> {
    /// Of the listener that a request came by; `None` where tokens are not taken, or the client calls it nothing.
    #[must_use]
    pub fn of(listener: &'a Listener, parts: &Parts) -> Option<Self> {
        if !listener.config.identities.tokens() {
            return None;
        }
        let base = match &listener.config.url {
            Some(url) => url.clone(),
            None => {
                let named = parts.uri.authority().map(Authority::as_str);
                let host = named.or_else(|| parts.headers.get("host")?.to_str().ok())?;
                let host: Authority = host.parse().ok().filter(|h: &Authority| !h.as_str().contains('@'))?;
                format!("{}://{host}", if listener.tls.is_some() { "https" } else { "http" })
            }
        };
        Some(Self { base, listener })
    }

    /// The metadata of what is at this path; an empty one is all of it.
    #[must_use]
    pub fn document(&self, config: &Config, path: &str) -> Value {
        let issuers = self.listener.config.identities.issuers.iter();
        let servers: Vec<&str> =
            issuers.filter_map(|name| Some(config.issuer(name)?.issuer.as_str())).collect();
        json!({
            "resource": format!("{}{path}", self.base),
            "authorization_servers": servers,
            "bearer_methods_supported": ["header"],
        })
    }

    /// What a 401 says in `WWW-Authenticate` (section 5.1).
    #[must_use]
    pub fn challenge(&self, path: &str, has_token: bool) -> Option<HeaderValue> {
        // Who brought none has to fetch one, not another one (RFC 6750 section 3.1).
        let error = if has_token { ", error=\"invalid_token\"" } else { "" };
        let text = format!(
            "Bearer realm=\"oakallow\", resource_metadata=\"{}{WELL_KNOWN}{path}\"{error}",
            self.base
        );
        HeaderValue::from_str(&text).ok()
    }
}
