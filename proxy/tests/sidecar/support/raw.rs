//! HTTP/1.1 byte by byte, for requests that no well-behaved client sends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

/// Sends the bytes and reads until the other side closes; what came back.
pub(crate) async fn exchange(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    // It may close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    // A reset after the answer is an end as well.
    assert!(end.is_ok(), "it stays open after {answer:?} to {:?}", String::from_utf8_lossy(request));
    answer
}

/// The statuses of all answers in it.
pub(crate) fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.split("HTTP/1.1 ").skip(1);
    lines.map(|line| line[..3].parse().expect("a status")).collect()
}
