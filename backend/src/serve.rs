//! Connections: accepted, bounded in number and in patience, ended in good order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::state::App;

/// Each costs a file descriptor and a few tens of kilobytes; the fleet's feeds are the most of them.
const CONNECTIONS_MAX: usize = 20_000;
/// An HTTP/2 peer that does not answer a ping for this long is gone.
const PING: Duration = Duration::from_secs(30);

/// Serves until the backend stops, then lets each connection finish its request. Dropping the future
/// cuts them.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new());
    // A client that trickles its headers (or keeps an idle connection) is cut off.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(app.config.header_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(PING));
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let (stream, place) = tokio::select! {
            () = app.stopped() => break,
            next = next(&listener, &places) => next,
            Some(_) = connections.join_next() => continue,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // The peer's doing; there is nobody to tell.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small: they are not held back to be sent together.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            // Out of file descriptors, or a peer that left at once: the next attempt may go better.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
