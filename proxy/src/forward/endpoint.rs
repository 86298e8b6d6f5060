//! One place where a tool server listens: connections to it, and whether it is well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use oakallow_policy::canonical::{base64url, sha256};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::addresses;
use super::failure::{Failure, Stage, Unopened, within};
use super::health::Health;
use super::http2;
use super::link::{Place, Protocol};
use super::opening::{Opening, Openings, Turn};
use super::pool::{Lease, Pool};
use crate::metrics::EndpointMetrics;

/// Of the digest of what is configured: enough to tell a few endpoints apart.
const TAG_BYTES: usize = 6;

/// TLS to the tool server, in its current form.
pub(super) struct Secured {
    pub(super) config: ArcSwap<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// How all endpoints of a route are connected to.
pub(super) struct Dialing {
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Secured>,
    pub(super) timeout: Duration,
}

pub(super) struct Endpoint {
    pub(super) place: Place,
    /// Names it in sessions: the same in every proxy with the same configuration of it.
    pub(super) tag: String,
    pub(super) pool: Arc<Pool>,
    dialing: Arc<Dialing>,
    /// What the name was last found to be; empty until it was looked up.
    addresses: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
    openings: Openings,
    /// Negotiated; a connection is for one request at a time then.
    speaks_http1: AtomicBool,
    pub(super) health: Health,
}

impl Endpoint {
    pub(super) fn new(place: Place, dialing: Arc<Dialing>, metrics: EndpointMetrics) -> Self {
        let digest = sha256(place.to_string().as_bytes());
        let addresses = match place {
            Place::Address(address) => vec![address],
            _ => Vec::new(),
        };
        Self {
            tag: base64url(digest.get(..TAG_BYTES).unwrap_or_default()),
            place,
            pool: Arc::default(),
            dialing,
            addresses: ArcSwap::from_pointee(addresses),
            turn: AtomicUsize::new(0),
            openings: Openings::default(),
            speaks_http1: AtomicBool::new(false),
            health: Health::new(metrics),
        }
    }

    /// A connection for one request. An error means that no byte of a request was sent.
    pub(super) async fn lease(&self) -> Result<Lease, Unopened> {
        match self.pool.take() {
            Some(lease) => Ok(lease),
            // Apart: it is large, and a call that is held would keep room for it.
            None => Box::pin(self.open()).await,
        }
    }

    async fn open(&self) -> Result<Lease, Unopened> {
        let place = tokio::time::timeout(self.dialing.timeout, self.place_or_turn()).await;
        let _opening = match place.map_err(|_| Unopened::Waited)? {
            Ok(lease) => return Ok(lease),
            Err(opening) => opening,
        };
        Ok(self.connect().await?)
    }

    /// A place on a connection that somebody else has opened meanwhile, or the turn to open one.
    async fn place_or_turn(&self) -> Result<Lease, Opening<'_>> {
        loop {
            let ended = self.openings.ended();
            match self.openings.turn(self.room()) {
                // One may just have been opened.
                Turn::Opens(opening) => return self.pool.take().ok_or(opening),
                Turn::Waits(_waiting) => ended.await,
            }
            if let Some(lease) = self.pool.take() {
                return Ok(lease);
            }
        }
    }

    /// How many requests a new connection takes at one time.
    fn room(&self) -> usize {
        let shares = match self.dialing.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => self.dialing.tls.is_some() && !self.speaks_http1.load(Ordering::Relaxed),
        };
        if shares { self.pool.room() } else { 1 }
    }

    /// Opens a connection and closes it: whether that is possible.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        self.connect().await.map(Lease::give_back)
    }

    async fn connect(&self) -> Result<Lease, Failure> {
        let deadline = Instant::now() + self.dialing.timeout;
        let generation = self.pool.generation();
        if let Place::Unix(path) = &self.place {
            let stream = within(deadline, Stage::Connect, UnixStream::connect(path)).await?;
            return self.secure(stream, generation, deadline).await;
        }
        let mut addresses = self.addresses.load_full();
        if addresses.is_empty() {
            // Only ever for the first connection.
            addresses = self.learn(within(deadline, Stage::Lookup, self.look_up()).await?);
        }
        if addresses.is_empty() {
            return Err(Failure::new(Stage::Lookup, io::Error::other("it has no address")));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let connecting = addresses::first_of(&addresses, turn, self.dialing.timeout, TcpStream::connect);
        let stream = within(deadline, Stage::Connect, connecting).await?;
        // Small frames are sent at once; a connection without that is slower, and no worse.
        let _ = stream.set_nodelay(true);
        self.secure(stream, generation, deadline).await
    }

    async fn secure<S>(&self, stream: S, generation: u64, deadline: Instant) -> Result<Lease, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let protocol = self.dialing.protocol;
        let Some(tls) = &self.dialing.tls else {
            let begun = self.begin(stream, protocol == Protocol::Http2, generation);
            return within(deadline, Stage::Http, begun).await;
        };
        let connector = tokio_rustls::TlsConnector::from(tls.config.load_full());
        let stream = within(deadline, Stage::Tls, connector.connect(tls.name.clone(), stream)).await?;
        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if protocol == Protocol::Http2 && !two {
            return Err(Failure::new(Stage::Http, io::Error::other("it does not speak HTTP/2")));
        }
        self.speaks_http1.store(!two, Ordering::Relaxed);
        within(deadline, Stage::Http, self.begin(stream, two, generation)).await
    }

    async fn begin<S>(&self, stream: S, two: bool, generation: u64) -> io::Result<Lease>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if two {
            let (sender, room) = http2::begin(stream).await?;
            let lease = self.pool.share(sender, room, generation);
            return lease.ok_or_else(|| io::Error::other("it takes no request over HTTP/2"));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(ended(connection));
        Ok(self.pool.begin(sender, generation))
    }

    /// Asks the resolver.
    pub(super) async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let Place::Named(host, port) = &self.place else { return Ok(Vec::new()) };
        Ok(tokio::net::lookup_host((host.as_str(), *port)).await?.collect())
    }

    /// Takes an answer of the resolver. An empty one says nothing: the last good one stays.
    pub(super) fn learn(&self, mut found: Vec<SocketAddr>) -> Arc<Vec<SocketAddr>> {
        found.sort_unstable();
        found.dedup();
        let known = self.addresses.load_full();
        if found.is_empty() || found == *known {
            return known;
        }
        let gone = known.iter().any(|address| !found.contains(address));
        let found = Arc::new(found);
        self.addresses.store(found.clone());
        if gone {
            // A connection that others share would stay at an address of before for as long as it is used.
            self.pool.renew();
        }
        found
    }
}

/// How a connection ends is known by those whose requests are on it.
async fn ended(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(e) = connection.await {
        tracing::debug!(error = %e, "a connection to a tool server ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use tokio::net::TcpListener;

    fn endpoint(place: &str) -> Endpoint {
        speaking(Protocol::Http1, place)
    }

    fn speaking(protocol: Protocol, place: &str) -> Endpoint {
        let dialing = Dialing { protocol, tls: None, timeout: Duration::from_secs(5) };
        let metrics = EndpointMetrics::new(&Metrics::new().unwrap(), "r", place);
        Endpoint::new(Place::parse(place).unwrap(), Arc::new(dialing), metrics)
    }

    /// Where the next connection goes: a lease of one, given back.
    async fn goes_to(endpoint: &Endpoint, listeners: &[&TcpListener; 2]) -> usize {
        let (lease, reached) = tokio::join!(endpoint.lease(), async {
            tokio::select! {
                _ = listeners[0].accept() => 0,
                _ = listeners[1].accept() => 1,
            }
        });
        drop(lease.unwrap());
        reached
    }

    #[tokio::test]
    async fn new_connections_go_where_the_name_was_last_found() {
        let (one, two) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
        let (one, two) = (one.unwrap(), two.unwrap());
        let endpoint = endpoint("tools.invalid:1");
        endpoint.learn(vec![one.local_addr().unwrap()]);
        assert_eq!(goes_to(&endpoint, &[&one, &two]).await, 0);
        let before = endpoint.pool.generation();
        endpoint.learn(vec![two.local_addr().unwrap()]);
        assert_ne!(endpoint.pool.generation(), before, "connections of before are not used any more");
        assert_eq!(goes_to(&endpoint, &[&one, &two]).await, 1);
        // Nor is the resolver asked: it does not know the name.
        assert!(endpoint.look_up().await.is_err());
        endpoint.learn(Vec::new());
        assert_eq!(goes_to(&endpoint, &[&one, &two]).await, 1, "an empty answer says nothing");
    }

    #[tokio::test]
    async fn a_name_is_looked_up_for_the_first_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(&format!("localhost:{}", listener.local_addr().unwrap().port()));
        assert!(endpoint.lease().await.is_ok());
        assert!(endpoint_unknown().lease().await.is_err());
    }

    fn endpoint_unknown() -> Endpoint {
        // RFC 6761 section 6.4: never found.
        endpoint("tools.invalid:1")
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_for_a_connection_of_others_blames_nobody() {
        // It takes connections, and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = speaking(Protocol::Http2, &listener.local_addr().unwrap().to_string());
        let later = async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            endpoint.lease().await
        };
        let (first, second, third) = tokio::join!(endpoint.lease(), later(), later());
        let failed = |lease: Result<Lease, Unopened>| match lease.map(|_| ()).unwrap_err() {
            Unopened::Waited => false,
            failed => failed.reason() == "timed_out",
        };
        assert!(failed(first));
        // One of them opened one after the first had failed; for that one the other waited.
        assert!(failed(second) ^ failed(third));
    }
}
