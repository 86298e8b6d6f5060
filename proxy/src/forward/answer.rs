//! A tool server's answer while it is read: its connection is free again when it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::Lease;

/// The body of an answer.
pub struct Answer {
    body: Incoming,
    lease: Option<Lease>,
    endpoint: usize,
}

impl Answer {
    pub(super) fn new(body: Incoming, lease: Lease, endpoint: usize) -> Self {
        let mut answer = Self { body, lease: Some(lease), endpoint };
        if answer.body.is_end_stream() {
            answer.release();
        }
        answer
    }

    /// Which of the route's endpoints answers.
    #[must_use]
    pub fn endpoint(&self) -> usize {
        self.endpoint
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            // Whatever is still to come on this connection, nobody could tell whose it is.
            Some(Err(_)) => self.lease = None,
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            _ => self.release(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
