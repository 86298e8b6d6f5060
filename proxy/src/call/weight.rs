//! What a message takes up in memory while it is here: not its body alone, but what was read from it, which for a
//! body of many small things is twenty times as much.

use std::mem::size_of;

use serde_json::Value;

use crate::call::IdentifiedCall;

/// A node of a map has room for so many members, which is taken whole.
const MAP_NODE_MEMBERS: usize = 11;
const MAP_NODE_BYTES: usize = MAP_NODE_MEMBERS * (size_of::<String>() + size_of::<Value>());

/// Of a smaller body nothing grows that would be worth a look.
const SMALL_BYTES: usize = 1024;

/// [`of`], of a call that is on its way and may have a second copy beside it; 0 when that is little.
#[must_use]
pub fn under_way(call: &IdentifiedCall, copies: usize) -> usize {
    if call.bytes <= SMALL_BYTES { 0 } else { call.bytes + copies * (of(call) - call.bytes) }
}

/// A body of so many bytes and what was read from it, call or not; 0 when that is little.
#[must_use]
pub fn read(bytes: usize, value: &Value) -> usize {
    if bytes <= SMALL_BYTES { 0 } else { bytes + tree(value) }
}

/// Bytes, about.
#[must_use]
pub fn of(call: &IdentifiedCall) -> usize {
    let beside = call.beside.iter().map(|(k, v)| k.len() + tree(v)).sum::<usize>();
    call.bytes + tree(&call.args) + tree(&call.parameters) + beside
}

/// As deep as a call may be, see [`oakallow_policy::strict_json::CALL_DEPTH_MAX`].
fn tree(value: &Value) -> usize {
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity(),
        Value::Array(items) => {
            let spare = items.capacity() - items.len();
            spare * size_of::<Value>() + items.iter().map(tree).sum::<usize>()
        }
        Value::Object(members) => {
            let nodes = members.len().div_ceil(MAP_NODE_MEMBERS / 2);
            let inside = members.iter().map(|(k, v)| k.capacity() + tree(v) - size_of::<Value>());
            nodes * MAP_NODE_BYTES + inside.sum::<usize>()
        }
    };
    size_of::<Value>() + inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_things_weigh_more_than_their_text() {
        let text = format!("[{}]", vec!["{}"; 10_000].join(","));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(tree(&value) > 10 * text.len(), "{}", tree(&value));
        let value: Value = serde_json::from_str(&format!("{:?}", "a".repeat(10_000))).unwrap();
        assert!(tree(&value) < 25_000, "{}", tree(&value));
    }
}
