//! The way to a tool server. A request goes out only with a [`Permit`], and only once.
//!
//! [`link`]: what is configured. [`endpoint`], [`opening`], [`http2`], [`pool`]: where it goes, over which
//! connection. [`failure`], [`health`]: what if there is none. [`addresses`]: which one of a name. [`keep`]: what is
//! looked after meanwhile. [`fields`]: what of the agent's head goes on.

mod addresses;
mod answer;
mod authorities;
mod credential;
mod endpoint;
mod failure;
mod fields;
mod health;
mod http2;
mod keep;
mod link;
mod opening;
mod pool;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use oakallow_policy::Permit;
use tokio::task::JoinHandle;

use crate::metrics::{EndpointMetrics, Metrics, RouteMetrics};
use crate::refusal::Refusal;
use crate::route::Route;
pub use answer::Answer;
use credential::Credential;
pub use credential::InjectError;
use endpoint::{Dialing, Endpoint, Secured};
pub(crate) use failure::REASONS;
use failure::Unopened;
pub use fields::{forbidden_to_inject, is_our_credential, passed_on, passing, put_token, target};
pub use link::{HealthCheck, Inject, Link, Place, Protocol, Source, TlsFiles};
use pool::Lease;
pub use tls::TlsError;

/// A connection that ends before a request is on it says nothing against the next one. A tool server that closes
/// each of so many is not there.
const CONNECTIONS_TRIED: usize = 4;

/// Why there is no way to a tool server: a file that was in order when the configuration was read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LinkError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Inject(#[from] InjectError),
}

/// A client for one route's tool server.
#[derive(Clone)]
pub struct Upstream {
    reach: Arc<Reach>,
    _keeper: Arc<Keeper>,
}

/// What looks after it, for as long as anybody uses it.
struct Keeper(JoinHandle<()>);

/// What calls and what looks after them share.
struct Reach {
    link: Link,
    base: Uri,
    host: HeaderValue,
    response_timeout: Duration,
    endpoints: Vec<Endpoint>,
    turn: AtomicUsize,
    dialing: Arc<Dialing>,
    credential: Option<Credential>,
    /// What was in the files that were read first.
    files: keep::Files,
    metrics: RouteMetrics,
}

/// What is sent.
pub struct Outgoing {
    /// HTTP method.
    pub method: Method,
    /// Where to, as [`target`] made it.
    pub uri: Uri,
    /// Fields, as [`passed_on`] left them.
    pub headers: HeaderMap,
    /// The exact bytes.
    pub body: Bytes,
}

/// How sending ended when no answer came.
enum Failed {
    /// Nothing was sent: the request is as it was.
    Unsent(Request<pool::Body>),
    /// It was sent, or may have been.
    Sent(Refusal),
}

impl Upstream {
    /// For a route. Reads what its files hold.
    pub fn new(route: &Route, metrics: &Metrics) -> Result<Self, LinkError> {
        let link = route.link.clone();
        let files = keep::Files::of(&link);
        let tls = match &link.tls {
            None => None,
            Some(files) => {
                let config = ArcSwap::new(files.load(link.protocol)?);
                Some(Secured { config, name: files.name()? })
            }
        };
        let dialing = Arc::new(Dialing { protocol: link.protocol, tls, timeout: route.connect_timeout });
        let metrics_of =
            |place: &Place| EndpointMetrics::new(metrics, route.name.as_str(), &place.to_string());
        let endpoints = link.endpoints.iter();
        let endpoints = endpoints.map(|p| Endpoint::new(p.clone(), dialing.clone(), metrics_of(p))).collect();
        let reach = Arc::new(Reach {
            base: route.upstream.clone(),
            host: host(&route.upstream),
            response_timeout: route.response_timeout,
            endpoints,
            turn: AtomicUsize::new(0),
            dialing,
            credential: link.inject.as_ref().map(Credential::new).transpose()?,
            files,
            metrics: RouteMetrics::new(metrics, route.name.as_str()),
            link,
        });
        let keeper = Keeper(tokio::spawn(keep::keep(reach.clone())));
        Ok(Self { reach, _keeper: Arc::new(keeper) })
    }

    /// Sends, once: to this endpoint, or to any that is well. An error other than
    /// [`Refusal::UpstreamUnreachable`] leaves the outcome unknown.
    pub async fn send(
        &self,
        _permit: Permit,
        outgoing: Outgoing,
        to: Option<usize>,
    ) -> Result<Response<Answer>, Refusal> {
        let reach = &*self.reach;
        let uri = outgoing.uri;
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = outgoing.method;
        *request.headers_mut() = outgoing.headers;
        if let Some(credential) = &reach.credential {
            credential.put(request.headers_mut());
        }
        let count = reach.endpoints.len();
        let first =
            to.unwrap_or_else(|| if count > 1 { reach.turn.fetch_add(1, Ordering::Relaxed) } else { 0 });
        let tries = if to.is_some() { 1 } else { count };
        for n in 0..tries {
            let index = first.wrapping_add(n) % count;
            let Some(endpoint) = reach.endpoints.get(index).filter(|e| !e.health.is_out()) else { continue };
            // As long as nothing was sent, another connection may be tried.
            for _ in 0..CONNECTIONS_TRIED {
                let Ok(lease) = self.lease(endpoint).await else { break };
                match reach.over(lease, request, &uri, index).await {
                    Ok(response) => return Ok(response),
                    Err(Failed::Sent(refusal)) => return Err(refusal),
                    Err(Failed::Unsent(unsent)) => request = unsent,
                }
            }
        }
        Err(Refusal::UpstreamUnreachable)
    }

    async fn lease(&self, endpoint: &Endpoint) -> Result<Lease, Unopened> {
        let leased = endpoint.lease().await;
        if let Err(why) = &leased {
            endpoint.health.unreached(why, self.reach.endpoints.len() > 1);
        }
        leased
    }

    /// How sessions name this endpoint; `None` when there is no choice.
    #[must_use]
    pub fn tag(&self, endpoint: usize) -> Option<&str> {
        let endpoints = &self.reach.endpoints;
        endpoints.get(endpoint).filter(|_| endpoints.len() > 1).map(|e| e.tag.as_str())
    }

    /// The endpoint of this name, if calls go there.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Option<usize> {
        self.reach.endpoints.iter().position(|e| e.tag == tag && !e.health.is_out())
    }

    /// Whether there is more than one endpoint.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.reach.endpoints.len() > 1
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reach {
    /// The address of a path at the tool server.
    fn at(&self, path: &str) -> Result<Uri, http::Error> {
        let scheme = self.base.scheme_str().unwrap_or("http");
        let authority = self.base.authority().map_or("", http::uri::Authority::as_str);
        Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build()
    }

    /// Sends over this connection.
    async fn over(
        &self,
        lease: Lease,
        mut request: Request<pool::Body>,
        uri: &Uri,
        endpoint: usize,
    ) -> Result<Response<Answer>, Failed> {
        let sent = match lease {
            Lease::Whole { mut sender, pool, generation } => {
                *request.uri_mut() = origin_form(uri);
                request.headers_mut().insert(HOST, self.host.clone());
                fields::join_cookies(request.headers_mut());
                let sent = self.in_time(sender.try_send_request(request)).await;
                sent.map(|response| (response, Lease::Whole { sender, pool, generation }))
            }
            Lease::Stream { mut sender, stream } => {
                *request.uri_mut() = uri.clone();
                // It stands in `:authority` (RFC 9113 section 8.3.1).
                request.headers_mut().remove(HOST);
                let sent = self.in_time(sender.try_send_request(request)).await;
                sent.map(|response| (response, Lease::Stream { sender, stream }))
            }
        };
        let (response, lease) = sent?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for another protocol.
            return Err(Failed::Sent(Refusal::UpstreamBroken));
        }
        Ok(response.map(|body| Answer::new(body, lease, endpoint)))
    }

    /// Waits for an answer's head.
    async fn in_time(
        &self,
        sending: impl Future<
            Output = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<pool::Body>>>,
        >,
    ) -> Result<Response<Incoming>, Failed> {
        match tokio::time::timeout(self.response_timeout, sending).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut e)) => Err(match e.take_message() {
                Some(request) => Failed::Unsent(request),
                None => Failed::Sent(after_sending(&e.into_error())),
            }),
            Err(_) => Err(Failed::Sent(Refusal::UpstreamTimeout)),
        }
    }

    fn renew_tls(&self) {
        let (Some(files), Some(tls)) = (&self.link.tls, &self.dialing.tls) else { return };
        match files.load_again(self.link.protocol) {
            Ok(config) => {
                tls.config.store(config);
                // What an authority of before vouched for is not used any more.
                self.endpoints.iter().for_each(|endpoint| endpoint.pool.renew());
                tracing::info!(
                    route = self.metrics.route,
                    "the certificates for a tool server were read again"
                );
            }
            Err(e) => self.refused(&e),
        }
    }

    fn renew_credential(&self) {
        let (Some(inject), Some(credential)) = (&self.link.inject, &self.credential) else { return };
        match inject.value() {
            Ok(value) => {
                credential.set(value);
                tracing::info!(route = self.metrics.route, "the credential for a tool server was read again");
            }
            Err(e) => self.refused(&e),
        }
    }

    fn refused(&self, problem: &dyn std::fmt::Display) {
        self.metrics.reload_failures.inc();
        tracing::error!(route = self.metrics.route, error = %problem, "a changed file is not used; what was read before stays in force");
    }
}

/// What an error says of a request that was sent. Only a stream that the server itself refused was surely not
/// looked at (RFC 9113 section 8.7); a GOAWAY may have crossed it.
fn after_sending(e: &hyper::Error) -> Refusal {
    let h2 = std::error::Error::source(e).and_then(|e| e.downcast_ref::<h2::Error>());
    let refused =
        h2.is_some_and(|e| e.is_reset() && e.is_remote() && e.reason() == Some(h2::Reason::REFUSED_STREAM));
    if refused { Refusal::UpstreamUnreachable } else { Refusal::UpstreamBroken }
}

/// What stands in the request line (RFC 9112 section 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()))
}

/// `Host`, as configured; the scheme's own port is not said (RFC 9110 section 4.2.3).
fn host(base: &Uri) -> HeaderValue {
    let name = base.host().unwrap_or_default();
    let usual = if base.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let text = match base.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_as_configured() {
        for (base, said) in [
            ("http://tools", "tools"),
            ("http://tools:80/mcp", "tools"),
            ("https://tools:443", "tools"),
            ("https://tools:80", "tools:80"),
            ("http://[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(host(&base.parse().unwrap()), said, "{base}");
        }
    }
}
