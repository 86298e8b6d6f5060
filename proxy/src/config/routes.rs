//! Routes as they are written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri};
use oakallow_policy::id::Name;
use serde::Deserialize;

use super::issuers::{Issuer, Texts};
use super::upstream::{WrittenCheck, WrittenInject, WrittenLink, WrittenTls, url};
use crate::forward::{Link, Protocol};
use crate::route::{Pattern, Route, RouteKind};

/// How often an open stream hears a comment: half of what common intermediaries allow.
const COMMENT_EVERY_S: u64 = 15;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRoute {
    name: Name,
    kind: RouteKind,
    path: Option<String>,
    #[serde(default)]
    methods: Vec<String>,
    audience: Name,
    token_audience: Option<Texts>,
    upstream: Option<String>,
    endpoints: Option<Vec<String>>,
    protocol: Option<Protocol>,
    upstream_tls: Option<WrittenTls>,
    health_check: Option<WrittenCheck>,
    dns_refresh_s: Option<u64>,
    inject: Option<WrittenInject>,
    /// Tool name → JSON pointer to the resource in its arguments.
    #[serde(default)]
    resources: BTreeMap<Name, String>,
    /// Tool name → JSON pointer to the method in its arguments.
    #[serde(default)]
    method_pointers: BTreeMap<Name, String>,
    #[serde(default)]
    hold: WrittenHold,
    #[serde(default)]
    timeouts: Option<WrittenTimeouts>,
    #[serde(default)]
    hide_disabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenHold {
    budget_s: u64,
    comment_every_s: Option<u64>,
    progress_every_s: u64,
}

impl Default for WrittenHold {
    fn default() -> Self {
        Self { budget_s: 50, comment_every_s: None, progress_every_s: 10 }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenTimeouts {
    connect_s: u64,
    response_s: u64,
    idle_s: u64,
}

impl Default for WrittenTimeouts {
    fn default() -> Self {
        Self { connect_s: 5, response_s: 60, idle_s: 300 }
    }
}

/// Where a route's requests come from and where they go.
struct Way {
    pattern: Pattern,
    methods: Vec<Method>,
    upstream: Uri,
    link: Link,
}

/// A route as used, of one as written.
pub(super) fn route(mut w: WrittenRoute) -> Result<Arc<Route>, String> {
    let link = w.link();
    let way = if w.kind == RouteKind::Stdio { nowhere(&w, &link)? } else { by_http(&w, &link)? };
    for pointer in w.resources.values().chain(w.method_pointers.values()) {
        if !pointer.starts_with('/') {
            return Err(format!("`{pointer}`: a JSON pointer starts with a slash"));
        }
    }
    let token_audiences = w.token_audience.map(|Texts(all)| all);
    if token_audiences.as_ref().is_some_and(Vec::is_empty) {
        return Err("`token_audience` is empty: no token could be good".to_owned());
    }
    let seconds = Duration::from_secs;
    let timeouts = w.timeouts.unwrap_or_default();
    Ok(Arc::new(Route {
        name: w.name,
        kind: w.kind,
        pattern: way.pattern,
        methods: way.methods,
        audience: w.audience,
        token_audiences,
        upstream: way.upstream,
        link: way.link,
        resources: w.resources,
        method_pointers: w.method_pointers,
        hold_budget: seconds(w.hold.budget_s),
        comment_every: seconds(w.hold.comment_every_s.unwrap_or(COMMENT_EVERY_S)),
        progress_every: seconds(w.hold.progress_every_s),
        connect_timeout: seconds(timeouts.connect_s),
        response_timeout: seconds(timeouts.response_s),
        idle_timeout: seconds(timeouts.idle_s),
        hide_disabled: w.hide_disabled,
    }))
}

impl WrittenRoute {
    /// How the tool server is reached.
    fn link(&mut self) -> WrittenLink {
        WrittenLink {
            endpoints: self.endpoints.take(),
            protocol: self.protocol.take(),
            upstream_tls: self.upstream_tls.take(),
            health_check: self.health_check.take(),
            dns_refresh_s: self.dns_refresh_s.take(),
            inject: self.inject.take(),
        }
    }
}

fn by_http(w: &WrittenRoute, link: &WrittenLink) -> Result<Way, String> {
    let name = w.name.as_str();
    let missing = |key: &str| format!("the route `{name}` has no `{key}`");
    let written = w.upstream.as_deref().ok_or_else(|| missing("upstream"))?;
    let path = w.path.as_deref().ok_or_else(|| missing("path"))?;
    let upstream = url(written)?;
    let link = link.link(&upstream)?;
    let methods = w
        .methods
        .iter()
        .map(|m| m.parse::<Method>().map_err(|_| format!("`{m}` is not an HTTP method")))
        .collect::<Result<Vec<_>, _>>()?;
    let pattern = Pattern::parse(path).map_err(|problem| format!("`{path}`: {problem}"))?;
    if w.kind == RouteKind::Http && !pattern.has_tool() {
        return Err(format!("`{path}`: an http route's path has a {{tool}} segment"));
    }
    let methods = if methods.is_empty() && w.kind == RouteKind::Http { vec![Method::POST] } else { methods };
    Ok(Way { pattern, methods, upstream, link })
}

/// A `stdio` route has no way of its own: one client started the proxy, the proxy starts one server.
fn nowhere(w: &WrittenRoute, link: &WrittenLink) -> Result<Way, String> {
    let of_http = [
        ("path", w.path.is_some()),
        ("upstream", w.upstream.is_some()),
        ("methods", !w.methods.is_empty()),
        ("token_audience", w.token_audience.is_some()),
        ("comment_every_s", w.hold.comment_every_s.is_some()),
        ("timeouts", w.timeouts.is_some()),
    ];
    let written = of_http.iter().find(|(_, is_written)| *is_written).map(|(key, _)| *key);
    if let Some(key) = written.or_else(|| link.written()) {
        return Err(format!("`{key}` is for routes over HTTP: a `stdio` route has none"));
    }
    Ok(Way { pattern: Pattern::nothing(), methods: Vec::new(), upstream: Uri::default(), link: Link::none() })
}

/// What routes have to be among each other and with the issuers of tokens.
pub(super) fn check(routes: &[Arc<Route>], issuers: &[Issuer]) -> Result<(), String> {
    named_once(routes)?;
    reached(routes)?;
    let known = |audience: &&String| issuers.iter().any(|issuer| issuer.audiences.contains(audience));
    let mut named = routes.iter().flat_map(|route| route.token_audiences.iter().flatten());
    match named.find(|audience| !known(audience)) {
        Some(audience) => Err(format!("`{audience}` is the `audience` of no issuer: no token could be good")),
        None => Ok(()),
    }
}

/// A route's tool server, its metrics and its approvals are found by its name.
fn named_once(routes: &[Arc<Route>]) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    match routes.iter().find(|route| !seen.insert(&route.name)) {
        Some(route) => Err(format!("`{}` is the name of two routes", route.name)),
        None => Ok(()),
    }
}

/// The first route of a path takes all its requests, whatever their method.
fn reached(routes: &[Arc<Route>]) -> Result<(), String> {
    for (i, route) in routes.iter().enumerate().filter(|(_, route)| route.kind != RouteKind::Stdio) {
        if let Some(first) = routes.iter().take(i).find(|first| first.pattern == route.pattern) {
            return Err(format!(
                "`{}` has the path of the route `{}`, which takes all its requests",
                route.name, first.name
            ));
        }
    }
    Ok(())
}
