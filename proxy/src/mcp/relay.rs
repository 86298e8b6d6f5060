//! A tool server's answer on its way to the agent: as it comes, or rewritten message by message where it
//! must be (lists of tools; answers that end a hold, whose stream is ours).

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use oakallow_policy::Permission;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::answer;
use crate::client::{Client, Gone};
use crate::enforce::Waiter as _;
use crate::forward::{Answer, passed_on};
use crate::sse::{Message, Splitter};

/// Largest message that is rewritten, and largest that is looked into.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long an answer is still read when nobody waits for it: its outcome belongs in the record.
pub(super) const UNHEARD_MAX: Duration = Duration::from_secs(60);

/// Changes a message on its way; whether it did.
pub(super) type Rewrite<'a> = dyn FnMut(&mut Value) -> bool + Send + 'a;

/// How an answer is handed on.
pub(super) struct Plan<'a> {
    /// What is rewritten; `None`: nothing.
    pub(super) rewrite: Option<&'a mut Rewrite<'a>>,
    /// Nothing goes on that `rewrite` could not look at.
    pub(super) reads_all: bool,
    /// The request that is answered.
    pub(super) id: Option<&'a Value>,
    /// Said in our header.
    pub(super) permission: Option<Permission>,
    /// Longest pause in an answer that is not a stream of events.
    pub(super) idle: Duration,
    /// Whether the agent's leaving ends it: a cancel in the stateless era, and the end of a stream that
    /// answers no call.
    pub(super) leaving_cancels: bool,
    /// Ends the answer when it resolves; calls are finished, streams are not.
    pub(super) stop: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As the tool server ended it.
    Whole,
    /// It broke off, or fell silent.
    Broken,
    /// The agent left, and that ends it.
    Cancelled,
}

/// What went by.
pub(super) struct Relayed {
    /// The tool server's status.
    pub(super) status: StatusCode,
    /// Bytes of the body.
    pub(super) bytes: u64,
    /// Their SHA-256.
    pub(super) sha256: [u8; 32],
    /// How it ended.
    pub(super) end: End,
    /// Whether the tool failed, as far as can be known; `None`: its answer did not come.
    pub(super) failed: Option<bool>,
    /// Whether the answer to the request was seen among what went by.
    pub(super) seen: bool,
}

impl Relayed {
    /// Of a request that was not sent.
    #[must_use]
    pub(super) fn nothing() -> Self {
        let status = StatusCode::BAD_GATEWAY;
        Self { status, bytes: 0, sha256: [0; 32], end: End::Whole, failed: None, seen: false }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Events,
    Json,
    Other,
}

/// One answer under way.
struct Relay<'a, 'p, 's> {
    client: &'a mut Client<'s>,
    plan: Plan<'p>,
    shape: Shape,
    /// Whole messages are needed: to rewrite them, or to see how the call went.
    splitter: Option<Splitter>,
    collected: Option<Vec<u8>>,
    /// Events into the stream that a hold has opened.
    into_stream: bool,
    /// When the agent was seen to have left.
    left_at: Option<Instant>,
    failed: Option<bool>,
    too_large: bool,
    /// The status says that this is what was asked for.
    success: bool,
}

/// Hands an answer to the agent.
pub(super) async fn relay(client: &mut Client<'_>, response: Response<Answer>, plan: Plan<'_>) -> Relayed {
    let (parts, mut body) = response.into_parts();
    let shape = shape(parts.headers.get(CONTENT_TYPE));
    let into_stream = client.is_streaming();
    let mut relay = Relay {
        shape,
        splitter: (shape == Shape::Events).then(|| Splitter::new(MESSAGE_BYTES_MAX)),
        collected: (shape != Shape::Events).then(Vec::new),
        into_stream,
        left_at: None,
        failed: None,
        too_large: false,
        success: parts.status.is_success(),
        client,
        plan,
    };
    let begun = relay.begin(&parts).await;
    relay.note(&begun);
    let (mut bytes, mut hash) = (0u64, Sha256::new());
    let end = loop {
        match relay.next(&mut body).await {
            Next::Chunk(chunk) => {
                bytes += chunk.len() as u64;
                hash.update(&chunk);
                let passed = relay.pass(chunk).await;
                relay.note(&passed);
                if relay.too_large && relay.rewrites() {
                    break End::Broken;
                }
            }
            Next::Left => relay.note(&Err(Gone)),
            Next::End(end) => break end,
        }
    };
    if end == End::Whole {
        let finished = relay.finish().await;
        relay.note(&finished);
    }
    let (failed, seen) = (relay.verdict(parts.status), relay.failed.is_some());
    Relayed { status: parts.status, bytes, sha256: hash.finalize().into(), end, failed, seen }
}

fn shape(content_type: Option<&HeaderValue>) -> Shape {
    let kind = content_type.and_then(|v| v.to_str().ok()).unwrap_or("").split(';').next().unwrap_or("");
    match kind.trim().to_ascii_lowercase().as_str() {
        "text/event-stream" => Shape::Events,
        "application/json" => Shape::Json,
        _ => Shape::Other,
    }
}

enum Next {
    Chunk(Bytes),
    Left,
    End(End),
}

impl Relay<'_, '_, '_> {
    fn has_left(&self) -> bool {
        self.left_at.is_some()
    }

    fn rewrites(&self) -> bool {
        self.plan.rewrite.is_some()
    }

    /// The agent may be gone; what that means is for [`Relay::next`] to say.
    fn note(&mut self, result: &Result<(), Gone>) {
        if result.is_err() && self.left_at.is_none() {
            self.left_at = Some(Instant::now());
        }
    }

    async fn begin(&mut self, parts: &http::response::Parts) -> Result<(), Gone> {
        if self.into_stream {
            return Ok(());
        }
        let mut headers = passed_on(&parts.headers);
        // What is rewritten has another length.
        if let Some(length) = parts.headers.get(CONTENT_LENGTH).filter(|_| !self.rewrites()) {
            headers.insert(CONTENT_LENGTH, length.clone());
        }
        self.client.begin(parts.status, headers, self.plan.permission, false).await
    }

    async fn next(&mut self, body: &mut Answer) -> Next {
        if self.has_left() && self.plan.leaving_cancels {
            return Next::End(End::Cancelled);
        }
        let until = match (self.left_at, self.shape) {
            (Some(left_at), _) => Some(left_at + UNHEARD_MAX),
            (None, Shape::Events) => None,
            (None, _) => Some(Instant::now() + self.plan.idle),
        };
        let frame = async {
            match until {
                Some(until) => tokio::time::timeout_at(until, body.frame()).await,
                None => Ok(body.frame().await),
            }
        };
        let left = self.has_left();
        let stop = self.plan.stop.as_mut();
        let stopped = async {
            match stop {
                Some(stop) => stop.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            frame = frame => match frame {
                Ok(Some(Ok(frame))) => Next::Chunk(frame.into_data().unwrap_or_default()),
                Ok(None) => Next::End(End::Whole),
                Ok(Some(Err(_))) | Err(_) => Next::End(End::Broken),
            },
            () = stopped => Next::End(End::Cancelled),
            () = self.client.gone(), if !left => Next::Left,
        }
    }

    async fn pass(&mut self, chunk: Bytes) -> Result<(), Gone> {
        let whole = self.split(&chunk);
        let converts = self.rewrites() || (self.into_stream && self.shape != Shape::Events);
        if !converts && !chunk.is_empty() {
            return if self.has_left() { Ok(()) } else { self.client.chunk(chunk).await };
        }
        for message in whole {
            let message = self.rewritten(message);
            if !self.has_left() {
                self.client.chunk(message).await?;
            }
        }
        Ok(())
    }

    /// Takes a chunk in, and returns the messages that are complete.
    fn split(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        if let Some(collected) = &mut self.collected {
            if collected.len() + chunk.len() > MESSAGE_BYTES_MAX {
                self.too_large = true;
            } else if !self.too_large {
                collected.extend_from_slice(chunk);
            }
            return Vec::new();
        }
        let Some(splitter) = self.splitter.as_mut().filter(|_| !self.too_large) else { return Vec::new() };
        let messages = splitter.push(chunk);
        self.too_large = splitter.is_overfull();
        for message in &messages {
            if let Ok(value) = serde_json::from_str(&Message::parse(message).data) {
                self.look(&value);
            }
        }
        messages
    }

    /// Whether this message answers the request, and how.
    fn look(&mut self, message: &Value) {
        let answers =
            self.plan.id.is_some() && message.get("id") == self.plan.id && message.get("method").is_none();
        if answers {
            self.failed = Some(says_failed(message));
        }
    }

    fn rewritten(&mut self, raw: Vec<u8>) -> Bytes {
        let Some(rewrite) = self.plan.rewrite.as_mut() else { return Bytes::from(raw) };
        let data = Message::parse(&raw).data;
        let Ok(mut value) = serde_json::from_str::<Value>(&data) else {
            let unread = self.plan.reads_all && !data.is_empty();
            return Bytes::from(if unread { with_data(&raw, &self.unreadable()) } else { raw });
        };
        if rewrite(&mut value) { Bytes::from(with_data(&raw, &value.to_string())) } else { Bytes::from(raw) }
    }

    async fn finish(&mut self) -> Result<(), Gone> {
        let rest = self.splitter.take().map(Splitter::rest).unwrap_or_default();
        if let Some(collected) = self.collected.take() {
            self.finish_collected(collected).await?;
        } else if self.rewrites() && !self.plan.reads_all && !rest.is_empty() && !self.has_left() {
            self.client.chunk(Bytes::from(rest)).await?;
        }
        // A stream that a hold opened is ended by whoever opened it: an answer may still be missing.
        if self.has_left() || self.into_stream { Ok(()) } else { self.client.end().await }
    }

    async fn finish_collected(&mut self, collected: Vec<u8>) -> Result<(), Gone> {
        let mut value = serde_json::from_slice::<Value>(&collected).ok().filter(|_| !self.too_large);
        if let Some(value) = &value {
            self.look(value);
        }
        let changed = match (self.plan.rewrite.as_mut(), value.as_mut()) {
            (Some(rewrite), Some(value)) => rewrite(value),
            _ => false,
        };
        let text = match value {
            Some(value) if changed => value.to_string().into_bytes(),
            None if self.plan.reads_all && self.success && !collected.is_empty() => {
                self.unreadable().into_bytes()
            }
            _ => collected,
        };
        if self.has_left() {
            return Ok(());
        }
        if self.into_stream {
            // Only an answer to the request may end its stream; anything else is for the caller to say.
            return match self.failed {
                Some(_) => self.client.chunk(Bytes::from(event(&text))).await,
                None => Ok(()),
            };
        }
        if self.rewrites() && !text.is_empty() { self.client.chunk(Bytes::from(text)).await } else { Ok(()) }
    }

    /// Stands for a message in which other readers may see what was not looked at.
    fn unreadable(&self) -> String {
        answer::unreadable(self.plan.id, "the tool server's answer cannot be read strictly").to_string()
    }

    /// By the answer if it was seen. Else by the status, for an answer that is too large to look into
    /// or not JSON; a stream that ended without the answer has no verdict.
    fn verdict(&self, status: StatusCode) -> Option<bool> {
        match self.failed {
            Some(failed) => Some(failed || !status.is_success()),
            None if !status.is_success() => Some(true),
            None if self.shape != Shape::Events => Some(!self.too_large),
            None => None,
        }
    }
}

/// Whether an answer says that the tool failed.
pub(super) fn says_failed(answer: &Value) -> bool {
    let is_error = answer.pointer("/result/isError").and_then(Value::as_bool).unwrap_or(false);
    is_error || answer.get("error").is_some()
}

/// A message event.
#[must_use]
pub(super) fn event(json: &[u8]) -> Vec<u8> {
    let mut event = b"event: message\n".to_vec();
    for line in json.split(|b| matches!(b, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line);
        event.push(b'\n');
    }
    event.push(b'\n');
    event
}

/// The message with other data; its id, name and the rest stay.
fn with_data(raw: &[u8], data: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(raw);
    let kept = text.split(['\n', '\r']).filter(|l| !l.is_empty() && !l.starts_with("data"));
    let mut message: String = kept.flat_map(|line| [line, "\n"]).collect();
    message.push_str("data: ");
    message.push_str(data);
    message.push_str("\n\n");
    message.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_carries_json_of_any_layout() {
        let message = Message::parse(&event(b"{\n \"a\": 1\r\n}\n"));
        assert_eq!(message.event.as_deref(), Some("message"));
        let value: Value = serde_json::from_str(&message.data).unwrap();
        assert_eq!(value, serde_json::json!({"a": 1}));
    }

    #[test]
    fn a_rewritten_message_keeps_its_id_and_name() {
        let raw = with_data(b": c\nevent: message\nid: 7\nretry: 5\ndata: {\ndata: }\n\n", "{\"b\":2}");
        let message = Message::parse(&raw);
        assert_eq!((message.id.as_deref(), message.event.as_deref()), (Some("7"), Some("message")));
        assert_eq!(message.data, "{\"b\":2}");
        assert!(String::from_utf8(raw).unwrap().contains("retry: 5\n"));
    }
}
