//! What a client hears while its call waits for a person, and afterwards.

use http::request::Parts;
use serde_json::{Value, json};

use crate::call::mcp::Message;
use crate::client::Company;
use crate::mcp::era::Era;
use crate::route::Route;

/// How a held call is kept alive; `None` for a client that does not read streams: it waits in silence.
pub(super) fn company((route, parts): (&Route, &Parts), message: &Message, era: Era) -> Option<Company> {
    let accepts = parts.headers.get_all("accept").iter().filter_map(|v| v.to_str().ok());
    let reads_streams = accepts.flat_map(|v| v.split(',')).any(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    });
    let progress = message.progress_token().filter(|_| era == Era::Sessions);
    reads_streams.then(|| Company {
        comment_every: route.comment_every,
        progress: progress.map(|token| (token.clone(), route.progress_every)),
    })
}

/// Progress of the tool's own goes on where the hold's has stopped, so that it only ever grows.
pub(super) fn later(message: &mut Value, token: Option<&Value>, shift: f64) -> bool {
    let ours = message.pointer("/params/progressToken").is_some_and(|t| Some(t) == token);
    if !ours || message.get("method").and_then(Value::as_str) != Some("notifications/progress") {
        return false;
    }
    let Some(progress) = message.pointer_mut("/params/progress") else { return false };
    let Some(number) = progress.as_f64() else { return false };
    *progress = json!(number + shift);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_only_grows() {
        let token = json!("p");
        let mut theirs =
            json!({"method": "notifications/progress", "params": {"progressToken": "p", "progress": 0}});
        assert!(later(&mut theirs, Some(&token), 3e-6));
        assert!(theirs["params"]["progress"].as_f64().unwrap() > 2e-6);
        let mut other =
            json!({"method": "notifications/progress", "params": {"progressToken": 1, "progress": 0}});
        assert!(!later(&mut other, Some(&token), 3e-6));
    }
}
