//! Pingora as a plain pass-through: what our proxy is held against. Same release, same allocator, same buffers and
//! threads, no word of ours. Some that look into bodies do no less than this with each: read it whole before they connect
//! (`--reads-body`); parse it as JSON and take its SHA-256 (`--inspects-body`).
//!
//!     bare-proxy LISTEN UPSTREAM [--reads-body | --inspects-body]

use std::env::args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use oakallow_policy::canonical::sha256;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As our listener has them.
const READ_BUFFER_BYTES: usize = 4 * 1024;
const WRITE_BUFFER_BYTES: usize = 1460;
/// As our upstream client has it.
const UPSTREAM_IDLE: Duration = Duration::from_secs(4);
const KEEPALIVE_S: u64 = 75;

struct Bare {
    upstream: SocketAddr,
    looks: Looks,
}

/// Into bodies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    Never,
    Reads,
    Inspects,
}

/// What nobody who decides on a body can do without. An error is an answer of 500.
fn inspect(body: &[u8]) -> pingora::Result<[u8; 32]> {
    let read = serde_json::from_slice::<serde_json::Value>(body);
    let broken = |e| pingora::Error::because(pingora::ErrorType::InternalError, "the body is no JSON", e);
    read.map(std::hint::black_box).map_err(broken)?;
    Ok(sha256(body))
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = Vec<Bytes>;

    fn new_ctx(&self) -> Vec<Bytes> {
        Vec::new()
    }

    async fn request_filter(&self, session: &mut Session, body: &mut Vec<Bytes>) -> pingora::Result<bool> {
        session.set_keepalive(Some(KEEPALIVE_S));
        if self.looks != Looks::Never {
            session.enable_retry_buffering();
            while let Some(part) = session.read_request_body().await? {
                body.push(part);
            }
        }
        if self.looks == Looks::Inspects {
            std::hint::black_box(inspect(&body.concat())?);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Vec<Bytes>) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        peer.options.idle_timeout = Some(UPSTREAM_IDLE);
        peer.options.connection_timeout = Some(Duration::from_secs(5));
        peer.options.read_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }
}

fn main() -> anyhow::Result<()> {
    let mut words = args().skip(1);
    let listen = words.next().context("LISTEN")?;
    let upstream = words.next().context("UPSTREAM")?.parse().context("UPSTREAM is an address")?;
    let looks = match words.next().as_deref() {
        None => Looks::Never,
        Some("--reads-body") => Looks::Reads,
        Some("--inspects-body") => Looks::Inspects,
        Some(other) => anyhow::bail!("{other} is not known"),
    };
    let conf = ServerConf { threads: 1, work_stealing: true, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let bare = Bare { upstream, looks };
    let mut service = http_proxy_service(&Arc::clone(&server.configuration), bare);
    let buffers = L4BufferSettings::new(READ_BUFFER_BYTES, WRITE_BUFFER_BYTES);
    service.add_listener(ListenerConfig::tcp(listen).l4_buffer(buffers));
    server.add_service(service);
    server.run_forever();
}
