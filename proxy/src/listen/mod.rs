//! Listeners for agents: over TCP or a Unix socket, in the clear or over TLS, each with its own idea of whom it
//! takes for whom ([`crate::identity`]).

pub mod http;
pub mod peer;
pub mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use pingora::protocols::Ssl as _;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as Plain;
use tokio::net::{TcpListener, UnixListener, UnixSocket};
use tokio::sync::watch;

use crate::app::App;
use crate::base::{StartError, bind as bind_tcp, io as io_error};
use crate::config::{Address, DataListener};
use crate::connection::Connection;
use crate::stream::Gathered;
use crate::watch::{Look, Watch};
use http::Server;
use peer::Peer;
use tls::{Reload, TlsState};

/// A client has this long for its handshake: until then it takes a place that others may want.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted at a Unix socket; what systems commonly allow at most.
const BACKLOG: u32 = 4096;
/// How often certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A listener that runs.
pub struct Listener {
    /// As configured.
    pub config: DataListener,
    /// Where it is: with the port that it got.
    pub at: Address,
    /// The same, as records of requests say it.
    pub name: Arc<str>,
    /// How it speaks TLS.
    pub tls: Option<TlsState>,
    /// Its connections that are in places of its own.
    pub(crate) own: AtomicUsize,
}

/// Where connections come in.
pub struct Socket(Door);

enum Door {
    Tcp(TcpListener),
    Unix {
        /// Goes before the listener is closed: whoever finds that nobody listens takes its place.
        _file: SocketFile,
        listener: UnixListener,
    },
}

/// The file of a socket, by its place and by what it is.
struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl SocketFile {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), id: Self::id(path) }
    }

    /// Device and inode.
    fn id(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have put its own there meanwhile.
        if self.id.is_some() && Self::id(&self.path) == self.id {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Where it is, over TCP.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self.at {
            Address::Tcp(address) => Some(address),
            Address::Unix { .. } => None,
        }
    }
}

/// Opens a listener.
pub async fn bind(config: DataListener) -> Result<(Arc<Listener>, Socket), StartError> {
    let tls = config.tls.as_ref().map(TlsState::load).transpose()?;
    let (at, door) = match &config.address {
        Address::Tcp(address) => {
            let (listener, at) = bind_tcp("data", *address).await?;
            (Address::Tcp(at), Door::Tcp(listener))
        }
        unix @ Address::Unix { path, mode } => {
            let listener = bind_unix(path, *mode).map_err(io_error(&unix.to_string()))?;
            (unix.clone(), Door::Unix { _file: SocketFile::of(path), listener })
        }
    };
    let (name, own) = (at.to_string().into(), AtomicUsize::new(0));
    Ok((Arc::new(Listener { config, at, name, tls, own }), Socket(door)))
}

/// The mode is set before anybody can connect: a socket that does not listen yet refuses.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already"));
        }
        // Of a process that was killed.
        std::fs::remove_file(path)?;
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)
}

impl Socket {
    async fn accept(&self) -> io::Result<(Plain, Option<IpAddr>)> {
        match &self.0 {
            Door::Tcp(listener) => {
                let (tcp, client) = listener.accept().await?;
                let _ = tcp.set_nodelay(true);
                Ok((Plain::from(tcp), Some(client.ip().to_canonical())))
            }
            Door::Unix { listener, .. } => {
                listener.accept().await.map(|(stream, _)| (Plain::from(stream), None))
            }
        }
    }
}

/// Our own accept loop: it knows its port, counts connections and stops when told, none of which
/// Pingora's server does.
pub async fn accept(
    (listener, socket): (Arc<Listener>, Socket),
    server: Arc<Server>,
    app: Arc<App>,
    mut stopped: watch::Receiver<bool>,
) {
    let watched = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopped.wait_for(|s| *s) => return,
        };
        let Ok((mut stream, client)) = accepted else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(connection) = app.connections.enter(&app.live().config, &listener, client) else {
            app.metrics.connections_refused.inc();
            continue;
        };
        if connection.is_surplus() {
            app.metrics.connections_refused.inc();
        }
        let (server, app, watched) = (server.clone(), app.clone(), watched.clone());
        connection.accompany(&mut stream);
        tokio::spawn(async move {
            let Some(stream) = open(stream, &connection, &app).await else { return };
            tokio::select! {
                () = server.serve(stream, &connection, &watched) => {}
                () = connection.overdue() => {}
            }
        });
    }
}

/// What HTTP is spoken over; `None` when the handshake fails.
async fn open(stream: Plain, connection: &Connection, app: &App) -> Option<Stream> {
    let Some(tls) = &connection.listener().tls else { return Some(Box::new(Gathered::new(stream))) };
    let loaded = tls.loaded();
    // Apart: it is large, and over long before its connection is.
    let handshake = Box::pin(loaded.acceptor.tls_handshake(stream));
    match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ssl().and_then(|ssl| ssl.peer_cert_chain_der());
            connection.shows(chain.and_then(Peer::new));
            Some(Box::new(Gathered::new(stream)))
        }
        failed => {
            // Whoever reaches the port can make it fail: counted, and told only to who looks closely.
            app.metrics.entrance.tls_handshake_failures.inc();
            if let Ok(Err(problem)) = failed {
                tracing::debug!(%problem, "a TLS handshake failed");
            }
            None
        }
    }
}

/// Takes up certificates that change, and looks at once when SIGHUP asks for it.
pub async fn follow(app: Arc<App>, listeners: Vec<Arc<Listener>>) {
    let mut watch = Watch::new("certificates", LOOK_EVERY);
    loop {
        let look = watch.next().await;
        for tls in listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            let result = match tls.reload(look) {
                // Whoever asks may want to see that it was heard.
                Reload::Unchanged if look == Look::Due => continue,
                Reload::Unchanged => "unchanged",
                Reload::Applied => {
                    // Other authorities may be among them.
                    app.trust.send_replace(());
                    "applied"
                }
                Reload::Refused => "refused",
            };
            app.metrics.entrance.certificate_reloads.with_label_values(&[result]).inc();
        }
        let refused = listeners.iter().filter_map(|l| l.tls.as_ref()).filter(|tls| tls.is_refused()).count();
        app.metrics.entrance.certificates_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_somebody_else_has_put_in_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let socket = || {
            let listener = bind_unix(&path, 0o600).unwrap();
            Socket(Door::Unix { _file: SocketFile::of(&path), listener })
        };
        let first = socket();
        std::fs::remove_file(&path).unwrap();
        let second = socket();
        drop(first);
        assert!(path.exists(), "it is the second one's");
        drop(second);
        assert!(!path.exists());
    }
}
