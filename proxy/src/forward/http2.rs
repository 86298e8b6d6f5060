//! HTTP/2 connections that know how many requests they may carry: a request beyond what the server allows would
//! wait in the library, and nobody could tell whether it was sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::pool::Body;

/// A connection with requests on it is asked this often whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// All fields of an answer, as for HTTP/1.1 (hyper's limit there is of the same size).
const HEADER_BYTES_MAX: u32 = 400 * 1024;
/// Servers are told not to allow fewer (RFC 9113 section 6.5.2), and one that allows more still gets another
/// connection: streams share their connection's losses and its window.
pub(super) const STREAMS_MAX: usize = 100;

/// How many requests are on a connection, and how many may be.
#[derive(Debug, Default)]
pub(super) struct Room {
    used: AtomicUsize,
    limit: AtomicUsize,
}

/// One request's place, for as long as it lives.
pub(super) struct Stream(Arc<Room>);

impl Room {
    /// A place, if there is one. Not to be asked by two at the same time.
    pub(super) fn place(self: &Arc<Self>) -> Option<Stream> {
        if self.used.load(Ordering::Relaxed) >= self.limit() {
            return None;
        }
        self.used.fetch_add(1, Ordering::Relaxed);
        Some(Stream(self.clone()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used.load(Ordering::Relaxed) == 0
    }

    /// What the server allows, and we use.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    fn allows(&self, streams: usize) {
        self.limit.store(streams.min(STREAMS_MAX), Ordering::Relaxed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins a connection over this stream, and waits for what the server says first: its settings (section 3.4).
pub(super) async fn begin<S>(stream: S) -> io::Result<(http2::SendRequest<Body>, Arc<Room>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let heard = Arc::new(AtomicWaker::new());
    let stream = Heeded { stream, heard: heard.clone(), has_read: false };
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(HEADER_BYTES_MAX)
        // None, until the server has said how many.
        .initial_max_send_streams(0)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let room = Arc::new(Room::default());
    let (told, settings) = oneshot::channel();
    let kept = room.clone();
    tokio::spawn(async move {
        let mut told = Some(told);
        let ended = std::future::poll_fn(|cx| {
            if told.is_some() {
                heard.register(cx.waker());
            }
            let polled = Pin::new(&mut connection).poll(cx);
            // A server may change its mind: looked at with each request.
            let allowed = connection.current_max_send_streams();
            kept.allows(allowed);
            if let Some(told) = told.take_if(|_| allowed > 0) {
                let _ = told.send(());
            }
            polled
        });
        if let Err(e) = ended.await {
            tracing::debug!(error = %e, "a connection to a tool server ended");
        }
    });
    let closed = |_| io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before HTTP/2 had begun");
    settings.await.map_err(closed)?;
    Ok((sender, room))
}

/// A stream that wakes somebody when all that was read has been looked at: hyper says when a connection ends, and
/// nothing before.
struct Heeded<S> {
    stream: S,
    heard: Arc<AtomicWaker>,
    has_read: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heeded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if read.is_ready() {
            self.has_read = true;
        } else if std::mem::take(&mut self.has_read) {
            self.heard.wake();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heeded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
