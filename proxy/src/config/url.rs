//! Ports of URLs.

use http::Uri;

/// Whether what stands in the place of a port is one. The type does not ask: it takes any text for the port, and who
/// asks it for the number gets none, as if there were no port.
pub(super) fn has_fair_port(url: &Uri) -> bool {
    let Some(authority) = url.authority() else { return true };
    let (_, place) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
    place.strip_prefix(authority.host()).is_some_and(str::is_empty) || url.port_u16().is_some_and(|p| p != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_that_a_port_can_have() {
        for (url, fair) in [
            ("http://a", true),
            ("http://a/b:99999", true),
            ("http://[::1]", true),
            ("http://[::1]:80/a", true),
            ("https://u:p@a:65535", true),
            ("/a", true),
            ("http://a:65536", false),
            ("http://127.0.0.1:99999/mcp", false),
            ("http://[::1]:99999", false),
            ("http://a:0", false),
            ("http://a:", false),
            ("http://u:1@a:", false),
        ] {
            assert_eq!(url.parse::<Uri>().is_ok_and(|url| has_fair_port(&url)), fair, "{url}");
        }
    }

    #[test]
    fn no_url_of_the_file_has_another() {
        let read = |backend: &str, listener: &str| {
            let text = format!(
                "state_dir: /tmp/none\nbackend: {{url: \"{backend}\"}}\nlisten: {{data: [{{address: \"127.0.0.1:0\", url: \"{listener}\"}}]}}\nroutes: [{{name: a, kind: http, path: \"/a/{{tool}}\", audience: tools, upstream: \"http://127.0.0.1:2\"}}]\n"
            );
            crate::config::Config::parse("test.yaml", &text).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(read("http://a:4000", "https://b:8443"), Ok(()));
        assert!(read("http://a:99999", "https://b:8443").unwrap_err().contains("test.yaml:2:"));
        assert!(read("http://a:4000", "https://b:99999").unwrap_err().contains("test.yaml:3:"));
        assert!(crate::config::issuers::is_safe("https://a/jwks").is_ok());
        assert!(crate::config::issuers::is_safe("https://a:99999/jwks").is_err());
    }
}
