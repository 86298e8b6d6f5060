//! Where a proxy listens, and whom each listener takes for whom.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::Uri;
use oakallow_policy::id::Name;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::issuers::{Issuer, email};
use crate::route::{Route, RouteKind};

/// Where a proxy listens; `None`, or none: nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Agents connect here; never to a proxy of `stdio` routes, whose one client has started it.
    pub data: Vec<DataListener>,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub ops: Option<SocketAddr>,
    /// `/holds`, `/explain`: for people on this machine.
    pub admin: Option<SocketAddr>,
}

/// One listener for agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataListener {
    /// Where.
    pub address: Address,
    /// How it speaks TLS; `None`: in the clear.
    pub tls: Option<Tls>,
    /// By what it knows callers.
    pub identities: Identities,
    /// What its clients call it, where that is not its address.
    pub url: Option<String>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:8080`
    Tcp(SocketAddr),
    /// `unix:/run/oakallow/agent.sock`
    Unix {
        /// The socket's.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// TLS of a listener; all of it in PEM files, which are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The chain, the listener's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of clients.
    pub clients: Option<Clients>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Who issues them.
    pub ca: PathBuf,
    /// Whether each client has to have one.
    pub required: bool,
    /// The tenant that callers known by one call for; `None`: the org alone.
    pub tenant: Option<Name>,
    /// E-mail of the person who answers for them, and does not approve their calls.
    pub owner: Option<Name>,
}

/// By what callers are known; a request has exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identities {
    /// Keys of ours.
    pub keys: bool,
    /// Certificates.
    pub certificates: bool,
    /// Tokens of these issuers.
    pub issuers: Vec<Name>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenListen {
    data: Option<WrittenData>,
    ops: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// One address, or a list of listeners.
enum WrittenData {
    Address(String),
    List(Vec<WrittenListener>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenListener {
    address: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    tls: Option<WrittenTls>,
    #[serde(default)]
    identities: Option<Vec<Name>>,
    #[serde(default)]
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTls {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    client_ca: Option<PathBuf>,
    #[serde(default)]
    client_certificate: Option<Demand>,
    #[serde(default)]
    client_tenant: Option<Name>,
    #[serde(default)]
    client_owner: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Demand {
    Required,
    Optional,
}

impl<'de> Deserialize<'de> for WrittenData {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(DataVisitor)
    }
}

/// Reads either form where it stands, so that errors know the place.
struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = WrittenData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address, or a list of listeners")
    }

    fn visit_str<E>(self, text: &str) -> Result<WrittenData, E> {
        Ok(WrittenData::Address(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<WrittenData, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(WrittenData::List)
    }
}

/// Wrappers of `stdio` servers run side by side on people's machines, so they listen where they are told to
/// and nowhere else.
pub(super) fn listen(
    w: WrittenListen,
    routes: &[std::sync::Arc<Route>],
    issuers: &[Issuer],
) -> Result<Listen, String> {
    if let Some(admin) = w.admin.filter(|admin| !admin.ip().is_loopback()) {
        return Err(format!(
            "`admin`: {admin} can be reached from elsewhere, and asks nobody who they are; use 127.0.0.1"
        ));
    }
    let stdio = routes.iter().filter(|r| r.kind == RouteKind::Stdio).count();
    if stdio == 0 {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let or = |written: Option<SocketAddr>, port| Some(written.unwrap_or_else(|| local(port)));
        let data = data(w.data, issuers)?;
        return Ok(Listen { data, ops: or(w.ops, 9902), admin: or(w.admin, 9901) });
    }
    if stdio < routes.len() {
        return Err("`stdio` routes stand in a file of their own: a proxy has them only, or none".to_owned());
    }
    if w.data.is_some() {
        return Err("`data`: nobody connects to a proxy of `stdio` routes; leave it out".to_owned());
    }
    if let Some(issuer) = issuers.first() {
        return Err(format!(
            "`{}`: over stdio the agent's key says who calls; leave `issuers` out",
            issuer.name
        ));
    }
    Ok(Listen { data: Vec::new(), ops: w.ops, admin: w.admin })
}

fn data(written: Option<WrittenData>, issuers: &[Issuer]) -> Result<Vec<DataListener>, String> {
    let plain = |address| DataListener { address, tls: None, identities: Identities::keys(), url: None };
    let listeners = match written {
        None => vec![plain(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080))))],
        Some(WrittenData::Address(text)) => vec![plain(address(&text, None)?)],
        Some(WrittenData::List(list)) if list.is_empty() => {
            return Err("`data` is empty: nobody could connect".to_owned());
        }
        Some(WrittenData::List(list)) => {
            list.into_iter().map(|w| listener(w, issuers)).collect::<Result<_, _>>()?
        }
    };
    let fixed = |address: &Address| !matches!(address, Address::Tcp(tcp) if tcp.port() == 0);
    let mut seen = std::collections::HashSet::new();
    let mut addresses = listeners.iter().map(|l| &l.address).filter(|address| fixed(address));
    if let Some(again) = addresses.find(|address| !seen.insert(address.to_string())) {
        return Err(format!("`{again}` is the address of two listeners"));
    }
    let used = |issuer: &&Issuer| listeners.iter().any(|l| l.identities.issuers.contains(&issuer.name));
    if let Some(idle) = issuers.iter().find(|issuer| !used(issuer)) {
        return Err(format!("`{}`: no listener has this issuer among its `identities`", idle.name));
    }
    Ok(listeners)
}

fn listener(w: WrittenListener, issuers: &[Issuer]) -> Result<DataListener, String> {
    let tls = w.tls.map(|tls| self::tls(tls, &w.address)).transpose()?;
    let identities =
        w.identities.map_or_else(|| Ok(Identities::keys()), |names| identities(names, issuers))?;
    let asks = tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    if identities.certificates && !asks {
        return Err(format!(
            "`{}`: to know callers by `certificates` takes `tls` with a `client_ca`",
            w.address
        ));
    }
    let clients = tls.as_ref().and_then(|tls| tls.clients.as_ref()).filter(|_| !identities.certificates);
    for (key, value) in [
        ("client_tenant", clients.and_then(|clients| clients.tenant.as_ref())),
        ("client_owner", clients.and_then(|clients| clients.owner.as_ref())),
    ] {
        if let Some(value) = value {
            return Err(format!("`{value}`: `{key}` is for listeners with `certificates` in `identities`"));
        }
    }
    let url = w.url.as_deref().map(base_url).transpose()?;
    Ok(DataListener { address: address(&w.address, w.mode.as_deref())?, tls, identities, url })
}

impl Identities {
    fn keys() -> Self {
        Self { keys: true, certificates: false, issuers: Vec::new() }
    }

    /// Whether it knows callers by tokens of an issuer.
    #[must_use]
    pub fn tokens(&self) -> bool {
        !self.issuers.is_empty()
    }
}

fn identities(names: Vec<Name>, issuers: &[Issuer]) -> Result<Identities, String> {
    let mut known = Identities { keys: false, certificates: false, issuers: Vec::new() };
    if names.is_empty() {
        return Err("`identities` is empty: nobody could call".to_owned());
    }
    for name in names {
        let again = match name.as_str() {
            "keys" => std::mem::replace(&mut known.keys, true),
            "certificates" => std::mem::replace(&mut known.certificates, true),
            issuer if issuers.iter().any(|i| i.name.as_str() == issuer) => known.issuers.contains(&name),
            other => {
                return Err(format!(
                    "`{other}` is neither `keys` nor `certificates` nor the name of an issuer"
                ));
            }
        };
        if again {
            return Err(format!("`{name}` stands twice in `identities`"));
        }
        if !matches!(name.as_str(), "keys" | "certificates") {
            known.issuers.push(name);
        }
    }
    Ok(known)
}

fn tls(w: WrittenTls, address: &str) -> Result<Tls, String> {
    let clients = match (w.client_ca, w.client_certificate) {
        (Some(ca), demand) => {
            let owner = w.client_owner.as_deref().map(email).transpose()?;
            Some(Clients { ca, required: demand != Some(Demand::Optional), tenant: w.client_tenant, owner })
        }
        (None, None) if w.client_tenant.is_none() && w.client_owner.is_none() => None,
        (None, _) => {
            return Err(format!(
                "`{address}`: certificates of clients take a `client_ca`, which says whose are believed"
            ));
        }
    };
    Ok(Tls { certificate: w.certificate, key: w.key, clients })
}

fn address(text: &str, mode: Option<&str>) -> Result<Address, String> {
    let Some(path) = text.strip_prefix("unix:") else {
        if mode.is_some() {
            return Err(format!("`{text}`: `mode` is for Unix sockets"));
        }
        let tcp = text.parse().map_err(|_| format!("`{text}` is neither IP:PORT nor unix:/PATH"))?;
        return Ok(Address::Tcp(tcp));
    };
    if !path.starts_with('/') {
        return Err(format!("`{text}`: the path of a socket begins with a slash"));
    }
    let mode = mode.unwrap_or("0600");
    let digits = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| b.is_ascii_digit());
    let octal = digits.then(|| u32::from_str_radix(mode, 8).ok()).flatten();
    let mode = octal
        .filter(|bits| *bits <= 0o777)
        .ok_or_else(|| format!("`{mode}`: the mode of a socket is written in octal, \"0660\""))?;
    Ok(Address::Unix { path: path.into(), mode })
}

fn base_url(text: &str) -> Result<String, String> {
    let bad = || format!("`{text}`: a `url` is http(s)://host[:port], and nothing behind it");
    let uri: Uri = text.parse().map_err(|_| bad())?;
    let plain = uri.path() == "/" && uri.query().is_none() && super::url::has_fair_port(&uri);
    let host = uri.authority().filter(|a| !a.as_str().contains('@'));
    match (uri.scheme_str(), host) {
        (Some(scheme @ ("http" | "https")), Some(host)) if plain => Ok(format!("{scheme}://{host}")),
        _ => Err(bad()),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}
