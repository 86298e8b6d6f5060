//! Many calls at once to a tool server that nothing is connected to yet.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use crate::support::policy::AUDIENCE;
use crate::support::sidecar::Sidecar;
use crate::support::tool::Authority;

const CALLS: usize = 8;

/// Speaks HTTP/1.1 over TLS. The first handshake goes well at once, the others only together; and nothing is
/// answered until there are so many requests.
async fn together(authority: &Authority, dir: &Path) -> String {
    let mut config = (*authority.server(dir, "server", false)).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (accepted, asked) = (Arc::new(Barrier::new(CALLS - 1)), Arc::new(Barrier::new(CALLS)));
    tokio::spawn(async move {
        for n in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (acceptor, accepted, asked) = (acceptor.clone(), accepted.clone(), asked.clone());
            tokio::spawn(async move {
                if n > 0 {
                    accepted.wait().await;
                }
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = vec![0; 64 * 1024];
                if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
                asked.wait().await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
            });
        }
    });
    at
}

/// A sidecar with this member in its route.
async fn sidecar(upstream: &str, more: serde_json::Value) -> Sidecar {
    let mut route = json!({
        "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": AUDIENCE, "upstream": upstream,
        "timeouts": {"connect_s": 3, "response_s": 20},
    });
    route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Sidecar::with(json!({"routes": [route]})).await
}

async fn statuses(sidecar: &Sidecar, calls: usize) -> Vec<u16> {
    let call = async |_| sidecar.call("read").send().await.unwrap().status().as_u16();
    join_all((0..calls).map(call)).await
}

#[tokio::test]
async fn a_burst_opens_its_connections_together_once_it_is_known_that_they_are_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(&dir.path().join("ca.pem"));
    authority.issue(dir.path(), "tools.test", "server");
    let at = together(&authority, dir.path()).await;
    let way = json!({"endpoints": [at], "upstream_tls": {"ca": dir.path().join("ca.pem")}});
    let sidecar = sidecar("https://tools.test", way).await;
    assert_eq!(statuses(&sidecar, CALLS).await, [200; CALLS]);
    assert_eq!(sidecar.metric("oakallow_upstream_connect_failures_total").await, 0.0);
}
