//! HTTP/2 (RFC 9113) frame by frame, for a client that sends first and listens afterwards.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// What fits into a frame, and into the window of a stream, before the other side has said more.
const FRAME_BYTES_MAX: usize = 16_384;
const WINDOW_BYTES: usize = 65_535;

/// What came back on the stream.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// The body.
    pub(crate) body: Vec<u8>,
    /// The other side ended it.
    pub(crate) ended: bool,
    /// Error code of a reset; 0 asks only to send no more (section 8.1).
    pub(crate) reset: Option<u32>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head, payload.to_vec()].concat()
}

/// A field as a literal that is not indexed (RFC 7541 section 6.2.2), without Huffman coding.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// Sends one request, as much of its body as the window takes, and reads the answer to its end, and on
/// to the reset where the request has not ended.
pub(crate) async fn post(
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
    end: bool,
) -> Answered {
    assert!(body.len() < WINDOW_BYTES, "more has to wait for the other side");
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    let block: Vec<u8> = pseudo.iter().chain(fields).flat_map(|(n, v)| field(n, v)).collect();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    sent.extend(frame(HEADERS, END_HEADERS, 1, &block));
    for part in body.chunks(FRAME_BYTES_MAX) {
        sent.extend(frame(DATA, 0, 1, part));
    }
    if end {
        sent.extend(frame(DATA, END_STREAM, 1, &[]));
    }
    stream.write_all(&sent).await.expect("it reads");
    let answer = tokio::time::timeout(PATIENCE, answered(&mut stream, !end)).await;
    answer.expect("it answers")
}

async fn answered(stream: &mut TcpStream, to_reset: bool) -> Answered {
    let mut answer = Answered::default();
    while !answer.ended || to_reset {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return answer;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.expect("a whole frame");
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match (head[3], head[4]) {
            (SETTINGS, flags) if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.expect("it reads");
            }
            (HEADERS | DATA, flags) => {
                answer.ended |= flags & END_STREAM != 0;
                if head[3] == DATA {
                    answer.body.extend_from_slice(&payload);
                }
            }
            (RST_STREAM, _) => {
                answer.reset = Some(code(0));
                return answer;
            }
            (GOAWAY, _) => assert_eq!(code(4), 0, "the connection ends with an error"),
            _ => {}
        }
    }
    answer
}

/// Kind and payload of the next frame; `None` at the end of the connection.
pub(crate) async fn next_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}
