//! Many calls at once to a tool server that nothing is connected to yet.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
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

/// Speaks HTTP/2 in the clear, with so many requests on a connection; answers none until there are [`CALLS`]. Where it
/// is, and how many connections came.
async fn allowing(streams: u32) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, connections) = (Arc::new(Barrier::new(CALLS)), Arc::new(AtomicUsize::new(0)));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let asked = asked.clone();
            let service = service_fn(move |_| {
                let asked = asked.clone();
                async move {
                    asked.wait().await;
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{}"))))
                }
            });
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (url, connections)
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

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_the_tool_server_allows() {
    let (url, connections) = allowing(3).await;
    let sidecar = sidecar(&url, json!({"protocol": "http2"})).await;
    assert_eq!(statuses(&sidecar, CALLS).await, [200; CALLS]);
    let opened = connections.load(Ordering::SeqCst);
    // Before the first one it is not known how many, so some waited for it that had to open one of their own.
    assert!((3..CALLS).contains(&opened), "{opened}");
}
