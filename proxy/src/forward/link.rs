//! How a route's tool server is reached, as configured.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

/// Everything beside the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it listens: at least one, but for routes that lead nowhere.
    pub endpoints: Vec<Place>,
    /// Which HTTP it is spoken to.
    pub protocol: Protocol,
    /// For `https`.
    pub tls: Option<TlsFiles>,
    /// How its endpoints are looked after; `None`: by whether connecting works.
    pub health_check: Option<HealthCheck>,
    /// How often names are looked up.
    pub dns_refresh: Duration,
    /// The credential that the tool server wants to see.
    pub inject: Option<Inject>,
}

impl Link {
    /// To nowhere.
    #[must_use]
    pub fn none() -> Self {
        Self {
            endpoints: Vec::new(),
            protocol: Protocol::Auto,
            tls: None,
            health_check: None,
            dns_refresh: Duration::MAX,
            inject: None,
        }
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Address(SocketAddr),
    /// A name to be looked up, and a port.
    Named(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// HTTP's version on the way to the tool server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// What TLS negotiates (ALPN, RFC 7301); HTTP/1.1 without TLS.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: negotiated and nothing else over TLS, with prior knowledge without (RFC 9113 section 3.3).
    Http2,
}

/// What TLS to the tool server is made of. Its certificate is always verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whose certificate it must be.
    pub server_name: String,
}

/// A request that asks an endpoint whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is fetched; a 2xx is a yes.
    pub path: String,
    /// How often, and how long an answer may take.
    pub interval: Duration,
    /// Failures in a row that take an endpoint out.
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back.
    pub healthy_after: u32,
}

/// A credential of the tool server's own, which the agent never has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inject {
    /// The field that carries it.
    pub header: HeaderName,
    /// What stands before the secret, such as `Bearer `.
    pub prefix: String,
    /// Where the secret is.
    pub source: Source,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
}

impl Place {
    /// Reads `host:port` or `unix:/path`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err("the path of a Unix socket is absolute: unix:/run/tools.sock");
            }
            // The address of a socket has 108 bytes on Linux, one of them its end.
            return if path.len() < 108 { Ok(Self::Unix(path.into())) } else { Err("the path is too long") };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err("a port is 1 to 65535")
            } else {
                Ok(Self::Address(address))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("an endpoint is host:port or unix:/path")?;
        let port = port.parse::<u16>().ok().filter(|p| *p != 0).ok_or("a port is 1 to 65535")?;
        let is_name =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if is_name {
            Ok(Self::Named(host.to_owned(), port))
        } else {
            Err("an endpoint is host:port or unix:/path")
        }
    }

    /// Whether what is said there does not leave this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().is_loopback(),
            // RFC 6761 section 6.3.
            Self::Named(host, _) => host.eq_ignore_ascii_case("localhost"),
            Self::Unix(_) => true,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Named(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for good in ["127.0.0.1:9000", "[::1]:9000", "tools:9000", "a-b.example.:1", "unix:/run/tools.sock"] {
            assert_eq!(Place::parse(good).unwrap().to_string(), good);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in [
            "",
            "tools",
            "tools:",
            "tools:0",
            "127.0.0.1:0",
            "tools:65536",
            ":1",
            "a b:1",
            "u@h:1",
            "::1:9000",
            "unix:run",
            "unix:",
            "http://a:1",
            &long,
        ] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_loopback_and_sockets_are_local() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("localhost:1", true),
            ("unix:/a", true),
            ("10.0.0.1:1", false),
            ("localhost.example:1", false),
        ] {
            assert_eq!(Place::parse(text).unwrap().is_local(), local, "{text}");
        }
    }
}
