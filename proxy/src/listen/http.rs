//! What Pingora serves a connection with, and what it lets a client of HTTP/2 do. Nothing of that is left to the
//! defaults of a library, which another version may change.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp as _};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;

use crate::app::App;
use crate::connection::Connection;
use crate::phases::Phases;

/// How long an HTTP/2 connection is kept on which nothing is under way.
const IDLE: Duration = Duration::from_secs(75);
/// Of a body, and of all bodies of a connection, what may come before it is read. That of the protocol
/// (RFC 9113 section 6.9.2): a client cannot send before it has heard of less.
const WINDOW_BYTES: u32 = 65_535;
/// The least that may be asked for (section 6.5.2).
const FRAME_BYTES_MAX: u32 = 16_384;
/// Of an answer, what waits for a client that does not read: as much as fits into the window that it begins with.
const UNREAD_BYTES_MAX: usize = 65_535;
/// Fields that HTTP/1.1 may have, as Pingora reads it. Each counts 32 bytes more here (section 6.5.2).
const FIELDS_MAX: usize = 256;
const FIELD_OVERHEAD_BYTES: usize = 32;
/// Streams that a client has reset before anybody looked at them; more end the connection ("rapid reset").
const RESET_UNSEEN_MAX: usize = 20;
/// Streams that are remembered for a moment after we reset them, since frames for them may be on their way.
const RESET_REMEMBERED_MAX: usize = 20;
/// Streams that we reset for a client's mistakes, over the life of a connection; more end it.
const MISTAKES_MAX: usize = 100;

/// Serves connections.
pub struct Server {
    app: Arc<App>,
    proxy: Arc<HttpProxy<Phases>>,
    options: HttpServerOptions,
}

/// Serves one connection.
struct Service {
    server: Arc<Server>,
    connection: Arc<Connection>,
}

impl Server {
    /// The one of a proxy.
    #[must_use]
    pub fn new(app: &Arc<App>) -> Arc<Self> {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(IDLE);
        // CONNECT names a place to go to, which is no tool: nothing opts in to it.
        options.allow_connect_method_proxying = false;
        let mut proxy = http_proxy(&Arc::new(ServerConf::default()), Phases(app.clone()));
        proxy.server_options = Some(options.clone());
        Arc::new(Self { app: app.clone(), proxy: Arc::new(proxy), options })
    }

    /// Serves a connection to its end.
    pub async fn serve(
        self: Arc<Self>,
        stream: Stream,
        connection: &Arc<Connection>,
        shutdown: &ShutdownWatch,
    ) {
        let service = Arc::new(Service { server: self, connection: connection.clone() });
        service.process_new(stream, shutdown).await;
    }

    /// Once no more connections come.
    pub async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

#[async_trait]
impl HttpServerApp for Service {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.server.proxy.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        // What the client is told is what it is held to.
        let header_bytes_max = self.server.app.live().config.limits.header_bytes_max;
        Some(h2_options(self.connection.streams_max(), header_bytes_max))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.server.options)
    }
}

fn h2_options(streams_max: usize, header_bytes_max: usize) -> H2Options {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let header_bytes_max = header_bytes_max.saturating_add(FIELDS_MAX * FIELD_OVERHEAD_BYTES);
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(number(streams_max))
        .max_header_list_size(number(header_bytes_max))
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buffer_size(UNREAD_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_UNSEEN_MAX)
        .max_concurrent_reset_streams(RESET_REMEMBERED_MAX)
        .max_local_error_reset_streams(Some(MISTAKES_MAX));
    options
}
