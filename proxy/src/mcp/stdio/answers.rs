//! What the tool server says: answers to the client's requests, and what it tells or asks the client of
//! itself, which passes as it is.

use std::sync::Arc;

use oakallow_policy::audit::ExecutionRecord;
use oakallow_policy::canonical::{hex, sha256};
use serde_json::Value;

use crate::mcp::hold;
use crate::mcp::list::Viewer;
use crate::mcp::relay::says_failed;
use crate::mcp::stdio::exchange::Exchange;
use crate::mcp::stdio::flights::Flight;
use crate::mcp::stdio::lines::{Line, Lines};

/// Hands on what the tool server says until it has ended.
pub(super) async fn hand_on_all(exchange: Arc<Exchange>, mut lines: Lines) {
    while let Some(line) = lines.recv().await {
        match line {
            Line::Whole(line) => exchange.hand_on(line).await,
            Line::TooLong => {
                // Whose answer it was cannot be known.
                tracing::error!("the tool server's answer is too large; it is taken for ended");
                return;
            }
        }
    }
}

/// What a message of the tool server's is.
enum Said {
    /// It tells or asks the client something.
    Asks,
    /// It answers this request.
    Answers(Box<Flight>),
    /// Neither.
    Nothing(&'static str),
}

impl Exchange {
    async fn hand_on(&self, line: Vec<u8>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match serde_json::from_slice::<Value>(&line) {
            // Each is an answer to be looked at, so each goes on for itself.
            Ok(Value::Array(messages)) => {
                for message in messages {
                    let line = message.to_string().into_bytes();
                    self.hand_on_one(message, line).await;
                }
            }
            Ok(message) => self.hand_on_one(message, line).await,
            Err(_) => tracing::warn!("the tool server wrote a line that is not JSON; it is left out"),
        }
    }

    async fn hand_on_one(&self, mut message: Value, line: Vec<u8>) {
        match self.said(&message) {
            Said::Asks => {
                let token = message.pointer("/params/progressToken").cloned();
                let shift = token.as_ref().map_or(0.0, |token| self.flights.shift(token));
                let changed = shift > 0.0 && hold::later(&mut message, token.as_ref(), shift);
                self.say(&message, line, changed).await;
            }
            Said::Answers(flight) => self.answer(message, line, *flight).await,
            Said::Nothing(why) => tracing::warn!("{why}; it is left out"),
        }
    }

    fn said(&self, message: &Value) -> Said {
        let is_answer = message.get("result").is_some() || message.get("error").is_some();
        match (message.get("method").and_then(Value::as_str), message.get("id")) {
            (Some(_), _) if !is_answer => Said::Asks,
            (None, Some(id)) if is_answer => match self.flights.land(id) {
                Some(flight) => Said::Answers(Box::new(flight)),
                // Perhaps one that is held here, and that the tool server has not seen.
                None => Said::Nothing("the tool server answers what it was not asked"),
            },
            _ => Said::Nothing("the tool server wrote what is no message"),
        }
    }

    /// The answer to a request: handed on, then recorded.
    async fn answer(&self, mut message: Value, line: Vec<u8>, flight: Flight) {
        let execution = ExecutionRecord {
            response_sha256: Some(hex(&sha256(&line))),
            response_bytes: Some(line.len() as u64),
            ..ExecutionRecord::default()
        };
        let failed = says_failed(&message);
        let changed = flight.listed.as_ref().is_some_and(|(caller, view)| {
            let definitions = &self.app.policy.definitions;
            Viewer { caller, audience: &self.route.audience, view, definitions }.filter(&mut message)
        });
        self.say(&message, line, changed).await;
        flight.outcome.answered(failed, execution);
    }

    /// In the tool server's own words, unless they were changed.
    async fn say(&self, message: &Value, line: Vec<u8>, changed: bool) {
        // That the client has gone is heard by whoever waits for it.
        let _ = if changed { self.client.say(message).await } else { self.client.line(line).await };
    }
}
