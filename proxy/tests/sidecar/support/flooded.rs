//! A proxy in a process of its own, so that its memory can be looked at, and a good client beside the bad ones.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::backend::Backend;
use super::policy::OrgBundle;
use super::process::Process;
use super::sidecar::config_text;
use super::upstream::Upstream;

/// What any flood may make the proxy grow by. Each sends several times as much.
const GROWTH_BYTES_MAX: usize = 48 * 1024 * 1024;

pub(crate) struct Flooded {
    pub(crate) proxy: Process,
    pub(crate) upstream: Upstream,
    _backend: Backend,
    _dir: tempfile::TempDir,
    before: usize,
}

impl Flooded {
    pub(crate) async fn start(limits: Value) -> Self {
        let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.yaml");
        let more = json!({"limits": limits});
        std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &more)).unwrap();
        let proxy = Process::start_logging(&file, "warn,oakallow_proxy=info");
        let flooded = Self { proxy, upstream, _backend: backend, _dir: dir, before: 0 };
        flooded.serves().await;
        Self { before: flooded.proxy.resident_bytes(), ..flooded }
    }

    /// A good client is served.
    pub(crate) async fn serves(&self) {
        let answer = self.proxy.call("read").send().await.expect("a good client is served");
        assert_eq!(answer.status(), 200);
    }

    pub(crate) async fn is_unmoved(&self, what: &str) {
        self.is_within(what, GROWTH_BYTES_MAX).await;
    }

    pub(crate) async fn is_within(&self, what: &str, bytes_max: usize) {
        self.serves().await;
        let growth = self.proxy.resident_bytes_peak().saturating_sub(self.before);
        assert!(growth < bytes_max, "{what}: it grew by {} KiB", growth / 1024);
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.proxy.data).await.expect("it listens")
    }

    /// Sends over and over until the other side has had enough, and for so many bytes at most; whether it had.
    pub(crate) async fn pour(&self, first: &[u8], more: &[u8], bytes_max: usize) -> bool {
        let mut stream = self.connect().await;
        let mut sent = stream.write_all(first).await;
        let mut poured = 0;
        while sent.is_ok() && poured < bytes_max {
            sent = stream.write_all(more).await;
            poured += more.len();
        }
        sent.is_err() || closes(&mut stream).await
    }
}

/// Whether the other side closes the connection, soon.
pub(crate) async fn closes(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_to_end(&mut rest)).await.is_ok()
}
