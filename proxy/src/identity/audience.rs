//! For which of an issuer's audiences a token is good on a route. A token that a client got for one resource
//! (RFC 8707) is not good at another one, or whoever serves the one could use it at the other.

use std::sync::Arc;

use http::Uri;

use crate::route::{Route, check_path};

/// The audiences of a route, among all routes of a proxy.
#[derive(Clone, Copy)]
pub struct Audiences<'a> {
    route: &'a Route,
    all: &'a [Arc<Route>],
}

impl<'a> Audiences<'a> {
    /// Of this route among all.
    #[must_use]
    pub fn of(route: &'a Route, all: &'a [Arc<Route>]) -> Self {
        Self { route, all }
    }

    /// Whether a token for this audience is good here: it is named for this route, or this route names none and the
    /// audience is no other route's, neither by name nor by being the URL of its resource.
    pub(super) fn takes(&self, audience: &str) -> bool {
        if self.route.token_audiences.is_some() {
            return is_named(self.route, audience);
        }
        let others = || self.all.iter().filter(|other| other.name != self.route.name);
        let resource = served_at(audience, self.all);
        resource.is_none_or(|route| route.name == self.route.name)
            && !others().any(|other| is_named(other, audience))
    }
}

fn is_named(route: &Route, audience: &str) -> bool {
    route.token_audiences.iter().flatten().any(|named| named == audience)
}

/// The route that serves what an audience is the URL of. Hosts are not compared: clients may know this proxy by several.
fn served_at<'a>(audience: &str, all: &'a [Arc<Route>]) -> Option<&'a Arc<Route>> {
    let url: Uri = audience.parse().ok()?;
    url.scheme()?;
    check_path(url.path()).ok()?;
    all.iter().find(|route| route.pattern.matches(url.path()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn good(routes: &str, audience: &str) -> Vec<String> {
        let text = format!(
            "listen: {{data: [{{address: \"127.0.0.1:0\", identities: [corp]}}]}}
issuers: [{{name: corp, issuer: i, audience: [shared, own, \"https://a.example/mcp\"], jwks_file: /k}}]
state_dir: /none
backend: {{url: \"http://127.0.0.1:1\"}}
routes: [{routes}]
"
        );
        let config = Config::parse("test.yaml", &text).unwrap();
        let takes = |route: &&Arc<Route>| Audiences::of(route, &config.routes).takes(audience);
        config.routes.iter().filter(takes).map(|route| route.name.to_string()).collect()
    }

    fn route(name: &str, path: &str, more: &str) -> String {
        format!(
            "{{name: {name}, kind: mcp, path: \"{path}\", audience: tools, upstream: \"http://127.0.0.1:2\"{more}}}"
        )
    }

    #[test]
    fn an_audience_is_good_where_it_belongs() {
        let named = ", token_audience: own";
        let both = ", token_audience: [own, shared]";
        let tools = "{name: tools, kind: http, path: \"/tools/{tool}\", audience: tools, upstream: \"http://127.0.0.1:2\"}";
        let routes = [
            route("mcp", "/mcp", ""),
            route("named", "/named", named),
            route("both", "/both", both),
            tools.to_owned(),
        ]
        .join(", ");
        for (audience, at) in [
            ("https://a.example/mcp", &["mcp"][..]),
            ("https://b.example/mcp", &["mcp"]),
            ("https://a.example/tools/read", &["tools"]),
            ("own", &["named", "both"]),
            ("shared", &["both"]),
            // Nobody's in particular.
            ("https://a.example", &["mcp", "tools"]),
            ("https://a.example/", &["mcp", "tools"]),
            ("https://a.example/elsewhere", &["mcp", "tools"]),
            ("/mcp", &["mcp", "tools"]),
            // Of a route that takes others.
            ("https://a.example/named", &[]),
        ] {
            assert_eq!(good(&routes, audience), at, "{audience}");
        }
    }

    #[test]
    fn the_first_route_of_a_path_is_the_one_that_serves_it() {
        let first = "{name: all, kind: http, path: \"/tools/{tool}\", audience: tools, upstream: \"http://127.0.0.1:2\"}";
        let routes = [first.to_owned(), route("shadowed", "/tools/mcp", "")].join(", ");
        assert_eq!(good(&routes, "https://a.example/tools/mcp"), ["all"]);
    }
}
