//! The proxy's configuration, and the places that it names.

use std::fs;
use std::iter;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use oakallow_policy::id::Name;
use oakallow_proxy::config::{Address, Config, DataListener, Issuer};
use oakallow_proxy::forward::Place as Endpoint;
use oakallow_proxy::listen::tls::days_left;
use oakallow_proxy::route::{Route, RouteKind};

use super::backend::good_for;
use super::tool_server::Place;
use super::{Finding, Places, Verdict};

/// Reads the configuration as the proxy would; says what is wrong with it, and where everything is.
pub(super) fn examine(file: &Path, findings: &mut Vec<Finding>) -> Places {
    let subject = file.display().to_string();
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(e) => {
            findings.push(Finding::new("config", &subject, Verdict::Fail, e.to_string()));
            return Places::default();
        }
    };
    let routes = config.routes.len();
    findings.push(Finding::new(
        "config",
        &subject,
        Verdict::Ok,
        format!("it is in order, with {routes} routes"),
    ));
    if let Err(problem) = config.check_files() {
        findings.push(Finding::new("config", &subject, Verdict::Fail, problem));
    }
    let warning = |caution| Finding::new("config", &subject, Verdict::Warn, caution);
    findings.extend(config.cautions().into_iter().map(warning));
    findings.extend(config.listen.data.iter().flat_map(certificates));
    findings.extend(config.routes.iter().flat_map(|route| certificates_of(route)));
    findings.extend(config.issuers.iter().flat_map(authorities_of));
    findings.push(state_dir(&config.state_dir, config.join_token.is_some()));
    // A server that the proxy starts is nowhere to be reached.
    let tool_servers = config.routes.iter().filter(|route| route.kind != RouteKind::Stdio);
    let at = |address: Option<SocketAddr>| address.map(|address| format!("http://{address}"));
    Places {
        tool_servers: tool_servers
            .flat_map(|route| {
                let mcp = route.kind == RouteKind::Mcp;
                addresses(route).into_iter().map(move |url| Place::of_route(&url, mcp))
            })
            .collect(),
        backend: Some(config.backend_url.trim_end_matches('/').to_owned()),
        proxy: proxy(&config),
        ops: at(config.listen.ops),
        issuers: config.issuers,
    }
}

/// Where a tool server can be asked: each endpoint, but for sockets, which are for this machine only.
fn addresses(route: &Route) -> Vec<String> {
    let scheme = route.upstream.scheme_str().unwrap_or("http");
    let reachable = route.link.endpoints.iter().filter(|place| !matches!(place, Endpoint::Unix(_)));
    reachable.map(|place| format!("{scheme}://{place}{}", route.upstream.path())).collect()
}

/// The directory with the proxy's key and the events that are not shipped yet.
fn state_dir(directory: &Path, has_join_token: bool) -> Finding {
    let subject = directory.display().to_string();
    let finding = |verdict, detail: String| Finding::new("state", &subject, verdict, detail);
    match fs::metadata(directory) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            let mode = found.permissions().mode() & 0o777;
            finding(Verdict::Fail, format!("it has mode {mode:o} and holds the proxy's keys: make it 700"))
        }
        Ok(_) => finding(Verdict::Ok, "it is there, and for its owner only".to_owned()),
        Err(_) if has_join_token => {
            finding(Verdict::Ok, "not there yet: the proxy makes it when it enrols".to_owned())
        }
        Err(_) => finding(
            Verdict::Warn,
            "not there, or not for this user to see; a proxy that enrols anew needs a join token".to_owned(),
        ),
    }
}

/// How long a listener's certificate is good for, and those of the authorities whose clients it takes.
fn certificates(listener: &DataListener) -> Vec<Finding> {
    let Some(tls) = &listener.tls else { return Vec::new() };
    let authorities = tls.clients.iter().map(|clients| ("client_ca", &clients.ca));
    good(&listener.address.to_string(), iter::once(("certificate", &tls.certificate)).chain(authorities))
}

/// The same of a tool server's authorities, and of the certificate that the proxy shows it.
fn certificates_of(route: &Route) -> Vec<Finding> {
    let Some(tls) = &route.link.tls else { return Vec::new() };
    let own = tls.client.iter().map(|(certificate, _)| ("upstream_tls.certificate", certificate));
    good(&route.name, tls.ca.iter().map(|ca| ("upstream_tls.ca", ca)).chain(own))
}

/// The same of the authorities of an issuer's servers.
fn authorities_of(issuer: &Issuer) -> Vec<Finding> {
    good(&issuer.name, issuer.ca.iter().map(|ca| ("ca", ca)))
}

fn good<'f>(subject: &str, files: impl Iterator<Item = (&'static str, &'f PathBuf)>) -> Vec<Finding> {
    let of = |(key, file): (&str, &PathBuf)| {
        let subject = if key == "certificate" { subject.to_owned() } else { format!("{subject} {key}") };
        match days_left(file) {
            Ok(days) => good_for(&subject, days),
            Err(problem) => Finding::new("tls", &subject, Verdict::Fail, problem.to_string()),
        }
    };
    files.map(of).collect()
}

/// Whether the keys of each issuer can be read from here.
pub(super) async fn issuers(issuers: &[Issuer]) -> anyhow::Result<Vec<Finding>> {
    let found = oakallow_proxy::identity::examine(issuers).await?;
    let finding = |(name, keys): (Name, Result<(), String>)| match keys {
        Ok(()) => Finding::new("issuer", &name, Verdict::Ok, "its keys can be read"),
        Err(problem) => {
            let problem = format!("its keys cannot be read: {problem}");
            Finding::new("issuer", &name, Verdict::Fail, problem)
        }
    };
    Ok(found.into_iter().map(finding).collect())
}

/// Where agents reach the proxy, if that can be said from here.
fn proxy(config: &Config) -> Option<String> {
    config.listen.data.iter().find_map(|listener| match (&listener.url, &listener.address) {
        (Some(url), _) => Some(url.clone()),
        (None, Address::Tcp(address)) if listener.tls.is_none() => Some(format!("http://{address}")),
        // The name in its certificate is not known.
        (None, _) => None,
    })
}
