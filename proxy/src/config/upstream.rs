//! The way to a route's tool server, as it is written.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};
use serde::Deserialize;

use super::url::{has_fair_port, shown};
use crate::forward::{HealthCheck, Inject, Link, Place, Protocol, Source, TlsFiles, forbidden_to_inject};

/// The keys of a route that say how its tool server is reached, besides its URL.
pub(super) struct WrittenLink {
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) protocol: Option<Protocol>,
    pub(super) upstream_tls: Option<WrittenTls>,
    pub(super) health_check: Option<WrittenCheck>,
    pub(super) dns_refresh_s: Option<u64>,
    pub(super) inject: Option<WrittenInject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTls {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCheck {
    path: String,
    #[serde(default = "ten")]
    interval_s: u64,
    #[serde(default = "three")]
    unhealthy_after: u32,
    #[serde(default = "two")]
    healthy_after: u32,
}

fn ten() -> u64 {
    10
}

fn three() -> u32 {
    3
}

fn two() -> u32 {
    2
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenInject {
    header: String,
    #[serde(default)]
    prefix: String,
    file: Option<PathBuf>,
    env: Option<String>,
    #[serde(default)]
    allow_cleartext: bool,
}

/// How often names are looked up: what common resolvers keep an answer for.
const DNS_REFRESH_S: u64 = 30;

/// The URL of a tool server.
pub(super) fn url(written: &str) -> Result<Uri, String> {
    let upstream: Uri =
        written.parse().map_err(|_| format!("`{}` is not a URL", shown("upstream", written)))?;
    let host = upstream.host().filter(|host| !host.is_empty());
    if !matches!(upstream.scheme_str(), Some("http" | "https")) || host.is_none() {
        return Err(format!(
            "`{}`: an upstream is http://host:port[/path] or https://…; a Unix socket stands in `endpoints`",
            shown("upstream", written)
        ));
    }
    if upstream.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        // Not repeated: it may be a secret.
        return Err(
            "`upstream`: a URL has no user or password in it; the tool server's credential is for `inject`"
                .to_owned(),
        );
    }
    if !has_fair_port(&upstream) {
        return Err(format!("`{written}`: a port is 1 to 65535"));
    }
    if upstream.query().is_some() {
        return Err(format!("`{}`: an upstream has no query", shown("upstream", written)));
    }
    Ok(upstream)
}

impl WrittenLink {
    /// The first key that is written.
    pub(super) fn written(&self) -> Option<&'static str> {
        let keys = [
            ("endpoints", self.endpoints.is_some()),
            ("protocol", self.protocol.is_some()),
            ("upstream_tls", self.upstream_tls.is_some()),
            ("health_check", self.health_check.is_some()),
            ("dns_refresh_s", self.dns_refresh_s.is_some()),
            ("inject", self.inject.is_some()),
        ];
        keys.iter().find(|(_, is_written)| *is_written).map(|(key, _)| *key)
    }

    /// As used, for this URL. Reads the files, so that what is missing is told now.
    pub(super) fn link(&self, upstream: &Uri) -> Result<Link, String> {
        let endpoints = self.endpoints(upstream)?;
        let protocol = self.protocol.unwrap_or_default();
        let tls = self.tls(upstream)?;
        if let Some(tls) = &tls {
            tls.load(protocol).map_err(|e| e.to_string())?;
        }
        let inject = match &self.inject {
            Some(written) => Some(written.inject(upstream, &endpoints)?),
            None => None,
        };
        let dns_refresh = match self.dns_refresh_s {
            Some(0) => return Err("`dns_refresh_s` is at least 1".to_owned()),
            written => Duration::from_secs(written.unwrap_or(DNS_REFRESH_S)),
        };
        let health_check = self.health_check.as_ref().map(WrittenCheck::check).transpose()?;
        Ok(Link { endpoints, protocol, tls, health_check, dns_refresh, inject })
    }

    fn endpoints(&self, upstream: &Uri) -> Result<Vec<Place>, String> {
        let written = match &self.endpoints {
            Some(written) if written.is_empty() => {
                return Err("`endpoints` is empty: leave it out".to_owned());
            }
            Some(written) => written.clone(),
            None => {
                let port = if upstream.scheme_str() == Some("https") { 443 } else { 80 };
                vec![format!(
                    "{}:{}",
                    upstream.host().unwrap_or_default(),
                    upstream.port_u16().unwrap_or(port)
                )]
            }
        };
        let mut endpoints: Vec<Place> = Vec::new();
        for text in &written {
            let place =
                Place::parse(text).map_err(|problem| format!("`{}`: {problem}", shown("endpoints", text)))?;
            if endpoints.contains(&place) {
                return Err(format!("`{text}` stands twice in `endpoints`"));
            }
            endpoints.push(place);
        }
        Ok(endpoints)
    }

    fn tls(&self, upstream: &Uri) -> Result<Option<TlsFiles>, String> {
        let host =
            upstream.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if upstream.scheme_str() != Some("https") {
            return match self.upstream_tls {
                Some(_) => Err("`upstream_tls` is for an upstream that begins with https://".to_owned()),
                None => Ok(None),
            };
        }
        let Some(written) = &self.upstream_tls else {
            return Ok(Some(TlsFiles { ca: None, client: None, server_name: host }));
        };
        let client = match (&written.certificate, &written.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => return Err("`certificate` needs its `key`".to_owned()),
            (None, Some(_)) => return Err("`key` needs its `certificate`".to_owned()),
        };
        let server_name = match &written.server_name {
            Some(name) if name.trim().is_empty() => {
                return Err("`server_name` is empty: whose certificate would be accepted? Leave it out for the upstream's host".to_owned());
            }
            Some(name) => name.clone(),
            None => host,
        };
        Ok(Some(TlsFiles { ca: written.ca.clone(), client, server_name }))
    }
}

impl WrittenCheck {
    fn check(&self) -> Result<HealthCheck, String> {
        if !self.path.starts_with('/') || self.path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(format!("`{}`: the path of a health check starts with a slash", self.path));
        }
        if self.interval_s == 0 || self.unhealthy_after == 0 || self.healthy_after == 0 {
            return Err(
                "`health_check`: interval_s, unhealthy_after and healthy_after are at least 1".to_owned()
            );
        }
        Ok(HealthCheck {
            path: self.path.clone(),
            interval: Duration::from_secs(self.interval_s),
            unhealthy_after: self.unhealthy_after,
            healthy_after: self.healthy_after,
        })
    }
}

impl WrittenInject {
    fn inject(&self, upstream: &Uri, endpoints: &[Place]) -> Result<Inject, String> {
        let header = self.header.parse::<HeaderName>();
        let header = header.map_err(|_| format!("`{}` is not the name of a field", self.header))?;
        if forbidden_to_inject(&header) {
            return Err(format!("`{}`: a credential does not go into this field", self.header));
        }
        let source = match (&self.file, &self.env) {
            (Some(file), None) => Source::File(file.clone()),
            (None, Some(variable)) => Source::Env(variable.clone()),
            _ => return Err("`inject` has one of `file` and `env`".to_owned()),
        };
        let clear = upstream.scheme_str() != Some("https");
        if clear && !self.allow_cleartext && !endpoints.iter().all(Place::is_local) {
            return Err("`inject`: the secret would leave this machine in the clear; use https, or say `allow_cleartext: true`".to_owned());
        }
        let inject = Inject { header, prefix: self.prefix.clone(), source };
        inject.value().map_err(|e| e.to_string())?;
        Ok(inject)
    }
}
