//! HTTP/1.1 byte by byte, for requests that no well-behaved client sends.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wait::PATIENCE;

/// Sends the bytes; the connection on which the answer will come.
pub async fn begin(base: &str, request: &[u8]) -> TcpStream {
    let addr = base.strip_prefix("http://").expect("plain HTTP").trim_end_matches('/');
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    stream.write_all(request).await.expect("it reads");
    stream
}

/// Sends the bytes and reads until the other side closes; what came back. The request should say
/// `Connection: close`.
pub async fn exchange(base: &str, request: &[u8]) -> String {
    let mut stream = begin(base, request).await;
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends the bytes, waits until the other side holds them, and goes away.
pub async fn abandon(base: &str, request: &[u8], held: impl Future<Output = ()>) {
    let mut stream = begin(base, request).await;
    held.await;
    let mut nothing = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut nothing)).await;
    assert!(early.is_err(), "it was answered, not held");
}

/// The status of a raw answer.
#[must_use]
pub fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("not an HTTP answer: {answer:?}"))
}
