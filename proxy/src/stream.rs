//! A connection of an agent whose answers leave in as few writes as can be: the first thing that is written after a
//! flush, the head of an answer, waits here for what follows it. Nothing after that is kept back: an answer that
//! comes slowly is passed on as it comes, and what came before one broke off is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept back at most: larger answers leave in pieces of it.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// What a connection keeps of its room when it has nothing to write; most connections are idle.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// A connection that gathers what is written.
#[derive(Debug)]
pub struct Gathered<S> {
    inner: S,
    /// Written by Pingora, not yet to the connection; up to `sent` it is.
    waiting: Vec<u8>,
    sent: usize,
    /// Something was written since the last flush.
    begun: bool,
}

impl<S: IO> Gathered<S> {
    /// Around a connection.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, waiting: Vec::new(), sent: 0, begun: false }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.waiting.clear();
        self.waiting.shrink_to(KEPT_BYTES_MAX);
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: IO> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: IO> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= WRITE_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        let taken = buf.len().min(WRITE_BYTES_MAX - self.waiting.len());
        self.waiting.extend_from_slice(buf.get(..taken).unwrap_or_default());
        if std::mem::replace(&mut self.begun, true)
            && let Poll::Ready(sent) = self.poll_send(cx)
        {
            sent?;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begun = false;
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for Gathered<S> {
    async fn shutdown(&mut self) {
        // Whoever does not take what is left has gone.
        let _ = std::future::poll_fn(|cx| self.poll_send(cx)).await;
        self.inner.shutdown().await;
    }
}

impl<S: IO> UniqueID for Gathered<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<S: IO> Ssl for Gathered<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<S: IO> GetTimingDigest for Gathered<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl<S: IO> GetProxyDigest for Gathered<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl<S: IO> GetSocketDigest for Gathered<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl<S: IO> Peek for Gathered<S> {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn head_and_body_leave_together_and_what_follows_at_once() {
        let (mut agent, ours) = duplex(WRITE_BYTES_MAX * 4);
        let mut ours = Gathered::new(ours);
        ours.write_all(b"head ").await.unwrap();
        let mut read = [0; 64];
        let early = tokio::select! {
            biased;
            read = agent.read(&mut read) => Some(read),
            () = tokio::task::yield_now() => None,
        };
        assert!(early.is_none());
        ours.write_all(b"body").await.unwrap();
        assert_eq!(agent.read(&mut read).await.unwrap(), b"head body".len());
        // What comes later is not kept back, flushed or not.
        ours.write_all(b"more").await.unwrap();
        assert_eq!(agent.read(&mut read).await.unwrap(), b"more".len());
    }

    #[tokio::test]
    async fn what_is_larger_leaves_in_pieces_and_room_is_given_back() {
        let (mut agent, ours) = duplex(1000);
        let mut ours = Gathered::new(ours);
        let text: Vec<u8> = (0..WRITE_BYTES_MAX * 3 + 7).map(|n| n.to_le_bytes()[0]).collect();
        let sent = text.clone();
        let send = async {
            ours.write_all(&sent).await.unwrap();
            ours.flush().await.unwrap();
            (ours.waiting.len(), ours.waiting.capacity() <= KEPT_BYTES_MAX)
        };
        let mut got = vec![0; text.len()];
        let (left, received) = tokio::join!(send, agent.read_exact(&mut got));
        received.unwrap();
        assert!(got == text);
        assert_eq!(left, (0, true));
    }
}
