//! Ports of URLs.

use http::Uri;

/// Whether what stands in the place of a port is one. The type does not ask: it takes any text for the port, and who
/// asks it for the number gets none, as if there were no port.
pub(super) fn has_fair_port(url: &Uri) -> bool {
    let Some(authority) = url.authority() else { return true };
    let (_, place) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
    place.strip_prefix(authority.host()).is_some_and(str::is_empty) || url.port_u16().is_some_and(|p| p != 0)
}

/// What of a URL may stand in a message, by which it is found in the file as well: neither a user, a password or a
/// query, nor a text that is no URL at all; each may hold a secret. Then it is the scheme, else the `key`.
pub(super) fn shown<'a>(key: &'a str, text: &'a str) -> &'a str {
    let plain = text.parse::<Uri>().is_ok() && !text.contains(['@', '?']);
    match text.find("://") {
        _ if plain => text,
        Some(at) if at > 0 => text.get(..at + 3).unwrap_or(key),
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_quoted() {
        let read = |backend: &str, upstream: &str, more: &str, jwks: &str| {
            let text = format!(
                "state_dir: /tmp/none\nbackend: {{url: \"{backend}\"}}\nlisten: {{data: [{{address: \"127.0.0.1:0\", identities: [corp]}}]}}\nissuers: [{{name: corp, issuer: i, audience: a, jwks_url: \"{jwks}\"}}]\nroutes: [{{name: a, kind: http, path: \"/a/{{tool}}\", audience: tools, upstream: \"{upstream}\"{more}}}]\n"
            );
            crate::config::Config::parse("test.yaml", &text).map(|_| ()).map_err(|e| e.to_string())
        };
        let (backend, upstream, jwks) = ("http://a:1", "http://b:2", "https://c/jwks");
        assert_eq!(read(backend, upstream, "", jwks), Ok(()));
        for (backend, upstream, more, jwks) in [
            (backend, upstream, ", inject: \"Bearer s3cret\"", jwks),
            (backend, "ftp://u:s3cret@b", "", jwks),
            (backend, "http://u:s3cret@b", "", jwks),
            (backend, "http://u:s3cret @b", "", jwks),
            (backend, "s3cret word", "", jwks),
            (backend, "http://b?key=s3cret", "", jwks),
            (backend, upstream, ", endpoints: [\"u:s3cret@b:1\"]", jwks),
            (backend, upstream, ", endpoints: [\"http://b:1/?key=s3cret\"]", jwks),
            ("ftp://u:s3cret@a", upstream, "", jwks),
            ("http://u:s3cret@a", upstream, "", jwks),
            ("http://a:1/?key=s3cret", upstream, "", jwks),
            ("http://a: s3cret", upstream, "", jwks),
            (backend, upstream, "", "http://u:s3cret@c/jwks"),
            (backend, upstream, "", "https://u:s3cret@c/jwks"),
            (backend, upstream, "", "https://c/ s3cret"),
        ] {
            let problem = read(backend, upstream, more, jwks).unwrap_err();
            assert!(!problem.contains("s3cret") && problem.starts_with("test.yaml:"), "{problem}");
            assert!(!problem.starts_with("test.yaml:1:"), "{problem}");
        }
    }

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
