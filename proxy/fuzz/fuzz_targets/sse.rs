//! A stream of server-sent events: no panic; where it is cut into chunks makes no difference; no byte is lost,
//! none is made.
//!
//! Input: a byte that says how long chunks are, then the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oakallow_proxy::sse::{Message, Splitter};

const LARGE: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((&length, stream)) = input.split_first() else { return };
    let mut whole = Splitter::new(LARGE);
    let messages = whole.push(stream);
    let mut cut = Splitter::new(LARGE);
    let mut pieces = Vec::new();
    for chunk in stream.chunks(usize::from(length).max(1)) {
        pieces.extend(cut.push(chunk));
    }
    assert_eq!(messages, pieces);
    let rest = cut.rest();
    assert_eq!(whole.rest(), rest);
    let mut all = messages.concat();
    all.extend_from_slice(&rest);
    assert_eq!(all, stream);
    for raw in &messages {
        let message = Message::parse(raw);
        assert!(message.data.len() <= raw.len() * 3, "invalid UTF-8 becomes at most three bytes each");
    }
});
