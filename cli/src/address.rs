//! Addresses to listen on, as people write them on the command line.

use std::net::{Ipv4Addr, SocketAddr};

/// Reads `IP:PORT` or `localhost:PORT`. Nothing is looked up: where a server listens must not depend on a
/// name service, and `localhost` is 127.0.0.1, which is what the other defaults are.
pub(crate) fn parse(written: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = written.parse() {
        return Ok(address);
    }
    match written.rsplit_once(':') {
        Some(("localhost", port)) => port.parse().map(local).map_err(|_| advice(DEFAULT)),
        Some(("" | "*", port)) => Err(advice(port.parse().unwrap_or(DEFAULT))),
        Some(_) => Err(advice(DEFAULT)),
        None => Err(advice(written.parse().unwrap_or(DEFAULT))),
    }
}

/// For the example, when no port was written.
const DEFAULT: u16 = 8080;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn advice(port: u16) -> String {
    format!("an IP address with a port is wanted, like {} or localhost:{port}", local(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_or_localhost_with_a_port() {
        for (written, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:18080", "127.0.0.1:18080"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:4000", "[::1]:4000"),
        ] {
            assert_eq!(parse(written).unwrap().to_string(), address, "{written}");
        }
    }

    #[test]
    fn anything_else_is_answered_with_an_example_that_would_do() {
        for (written, example) in [
            ("18080", "127.0.0.1:18080"),
            (":18080", "127.0.0.1:18080"),
            ("localhost", "127.0.0.1:8080"),
            ("localhost:http", "127.0.0.1:8080"),
            ("localhost:70000", "127.0.0.1:8080"),
            ("tools.example:80", "127.0.0.1:8080"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("", "127.0.0.1:8080"),
        ] {
            let said = parse(written).unwrap_err();
            assert!(said.contains(&format!("like {example} ")), "{written}: {said}");
        }
    }
}
