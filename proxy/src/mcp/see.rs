//! What those who watch get to know of a message.

use oakallow_policy::canonical::{hex, sha256};

use crate::call::mcp::Message;
use crate::call::methods;
use crate::observe::Trail;

/// Notes what a message is, for those who watch.
pub(super) fn see(message: &Message, (version, session): (Option<&str>, Option<&str>)) {
    let trail = Trail::current();
    trail.follow_meta(&message.params);
    trail.note(|noted| {
        noted.mcp_method = message.method.as_deref().and_then(methods::known);
        // A version is a date; anything else is the client's own text.
        let version = message
            .version()
            .or(version)
            .filter(|v| v.len() == 10 && v.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        noted.mcp_version = version.map(str::to_owned);
        // Whoever has the id itself could take the session over where nobody asks whose it is.
        noted.mcp_session = session.map(|id| hex(&sha256(id.as_bytes())).chars().take(16).collect());
    });
}
