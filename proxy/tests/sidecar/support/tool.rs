//! A tool server over any transport, which tells one from another.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) version: Version,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: HeaderMap,
}

/// The server; its connections end with it.
pub(crate) struct Tool {
    /// `host:port`, or `unix:/path`.
    pub(crate) at: String,
    came: Arc<Mutex<Vec<Came>>>,
    well: Arc<Mutex<StatusCode>>,
    task: JoinHandle<()>,
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate authority, and what it has signed, as files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn write(&self, file: &Path) {
        std::fs::write(file, self.issuer.pem()).unwrap();
    }

    /// A certificate for this name and its key: `NAME.crt`, `NAME.key`.
    pub(crate) fn issue(&self, dir: &Path, name: &str, file: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join(format!("{file}.crt")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    /// What a server of TLS needs; it asks for a certificate of this authority when it is told to.
    pub(crate) fn server(&self, dir: &Path, file: &str, asks: bool) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = CertificateDer::pem_file_iter(dir.join(format!("{file}.crt"))).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join(format!("{file}.key"))).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if asks {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

struct Memory {
    name: &'static str,
    came: Arc<Mutex<Vec<Came>>>,
    well: Arc<Mutex<StatusCode>>,
}

impl Tool {
    /// In the clear.
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::at(name, "127.0.0.1:0").await
    }

    /// At this address.
    pub(crate) async fn at(name: &'static str, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("it is free");
        let (mut tool, router) = Self::idle(name, listener.local_addr().unwrap().to_string());
        tool.task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, router.clone()));
            }
        });
        tool
    }

    /// At this Unix socket.
    pub(crate) fn at_socket(name: &'static str, path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (mut tool, router) = Self::idle(name, format!("unix:{}", path.display()));
        tool.task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, router.clone()));
            }
        });
        tool
    }

    /// Over TLS, as `tools.test`. The folder has its authority as `ca.pem`, and a stranger as `other.pem`.
    pub(crate) async fn between_authorities(name: &'static str, folder: &Path) -> Self {
        let (ours, other) = (Authority::new(), Authority::new());
        ours.write(&folder.join("ca.pem"));
        other.write(&folder.join("other.pem"));
        ours.issue(folder, "tools.test", "server");
        Self::secured(name, ours.server(folder, "server", false)).await
    }

    /// Over TLS.
    pub(crate) async fn secured(name: &'static str, config: Arc<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (mut tool, router) = Self::idle(name, listener.local_addr().unwrap().to_string());
        tool.task = tokio::spawn(over_tls(listener, config, router));
        tool
    }

    fn idle(name: &'static str, at: String) -> (Self, Router) {
        let (came, well) = (Arc::default(), Arc::new(Mutex::new(StatusCode::OK)));
        let memory = Arc::new(Memory { name, came: Arc::clone(&came), well: Arc::clone(&well) });
        let router = Router::new().fallback(move |request| std::future::ready(answer(&memory, request)));
        (Self { at, came, well, task: tokio::spawn(async {}) }, router)
    }

    /// What came, health checks apart.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().iter().filter(|came| came.path != "/well").cloned().collect()
    }

    /// What it answers to health checks.
    pub(crate) fn is_well(&self, status: StatusCode) {
        *self.well.lock().unwrap() = status;
    }
}

/// Serves over TLS until it is dropped.
pub(crate) async fn over_tls(listener: TcpListener, config: Arc<rustls::ServerConfig>, router: Router) {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (accepted, router) = (acceptor.accept(stream), router.clone());
        connections.spawn(async move {
            if let Ok(stream) = accepted.await {
                serve(stream, router).await;
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router) {
    let builder = auto::Builder::new(TokioExecutor::new());
    // How it ends is the other side's business.
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

fn answer(memory: &Memory, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let field = parts.headers.get("host").map(|h| h.to_str().unwrap().to_owned());
    let authority = parts.uri.authority().map(ToString::to_string);
    let path = parts.uri.path().to_owned();
    let came = Came {
        version: parts.version,
        path: path.clone(),
        host: authority.or(field).unwrap_or_default(),
        headers: parts.headers,
    };
    memory.came.lock().unwrap().push(came);
    if path == "/well" {
        return memory.well.lock().unwrap().into_response();
    }
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"at\":\"{}\"}}}}", memory.name);
    ([("content-type", "application/json"), ("mcp-session-id", "s1")], body).into_response()
}
