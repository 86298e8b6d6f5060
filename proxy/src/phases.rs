//! Pingora's phases: each delegates. The whole of a request is served in `request_filter`; Pingora's own
//! way to the upstream is never taken (docs/decisions/0010-data-plane.md).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use crate::app::App;
use crate::connection::Connection;
use crate::serve;

/// So many times the streams that a connection may have may be under way on it: a client takes some back now and then.
const TAKEN_BACK: usize = 2;

/// The proxy as Pingora sees it.
pub struct Phases(pub Arc<App>);

/// Counts a request for as long as it is worked on, also when it panics.
pub struct InFlight(Arc<App>, Option<Arc<Connection>>);

impl InFlight {
    /// From now on.
    #[must_use]
    pub fn new(app: &Arc<App>) -> Self {
        app.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(app.clone(), None)
    }

    /// Counts it to its connection; `false`: there are more of them than a client that keeps to the limit can have.
    fn over(&mut self, connection: Option<Arc<Connection>>) -> bool {
        let fits = |c: &Arc<Connection>| c.request_begins() <= c.streams_max().saturating_mul(TAKEN_BACK);
        let fits = connection.as_ref().is_none_or(fits);
        self.1 = connection;
        fits
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.1.iter().for_each(|c| c.request_ends());
    }
}

#[async_trait]
impl ProxyHttp for Phases {
    type CTX = InFlight;

    fn new_ctx(&self) -> InFlight {
        InFlight::new(&self.0)
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut InFlight) -> Result<()> {
        // Over HTTP/2 a request that is taken back makes room for the next at once, and is worked on all the same.
        if !ctx.over(Connection::of(session)) {
            self.0.metrics.connections_cut.inc();
            ctx.1.iter().for_each(|connection| connection.cut());
            return Err(Error::new_down(ErrorType::ConnectionClosed));
        }
        // What the client wants is known: HTTP/1.0 closes unless it says otherwise.
        let kept = session.get_keepalive().is_some() && !self.0.is_draining();
        // Pingora's own default is for ever after the first request; 0 would be as well.
        let idle_s = self.0.live().config.limits.idle_timeout_s;
        session.set_keepalive(kept.then_some(idle_s));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, _: &mut InFlight) -> Result<bool> {
        match serve::request(&self.0, session).await {
            Ok(()) => Ok(true),
            Err(_) => Err(Error::new_down(ErrorType::ConnectionClosed)),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut InFlight) -> Result<Box<HttpPeer>> {
        Err(Error::new_in(ErrorType::InternalError))
    }

    async fn fail_to_proxy(&self, _: &mut Session, _: &Error, _: &mut InFlight) -> FailToProxy {
        // Whatever could be answered has been; the connection ends.
        FailToProxy { error_code: 0, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &InFlight, _: &Error) -> bool {
        true
    }
}
