//! A message on its way to the tool server: one line, whatever its reader takes for the end of one, and no
//! token in it but ours.

use serde_json::{Map, Value, json};

use crate::call::mcp::META_TOKEN;

/// Characters that may stand in JSON as they are, and end a line for some readers.
const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// The message as it is sent. Written anew from what was read, because between two members of a message
/// there may be a carriage return, and a reader that takes it for the end of a line reads other messages.
pub(super) fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string();
    if line.contains(LINE_ENDS) {
        // They stand in texts only.
        for end in LINE_ENDS {
            line = line.replace(end, &format!("\\u{:04x}", u32::from(end)));
        }
    }
    line.push('\n');
    line.into_bytes()
}

/// Takes out a token that the client has put in.
pub(super) fn drop_token(message: &mut Value) {
    let meta = message.get_mut("params").and_then(|params| params.get_mut("_meta"));
    if let Some(meta) = meta.and_then(Value::as_object_mut) {
        meta.remove(META_TOKEN);
    }
}

/// Puts the token in.
pub(super) fn put_token(message: &mut Value, token: &str) {
    let members = |value: &'_ mut Value, name: &str| -> Option<()> {
        value.as_object_mut()?.entry(name).or_insert_with(|| Value::Object(Map::new()));
        Some(())
    };
    let _ = members(message, "params");
    let Some(params) = message.get_mut("params") else { return };
    let _ = members(params, "_meta");
    if let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.insert(META_TOKEN.to_owned(), json!(token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_for_every_reader() {
        let text = "{\"a\":\r{\"b\":\"x\u{2028}y\u{85}z\u{2029}\\r\\n\"}\r}";
        let message: Value = serde_json::from_str(text).unwrap();
        let line = String::from_utf8(line(&message)).unwrap();
        let body = line.strip_suffix('\n').unwrap();
        assert!(!body.contains(['\r', '\n', '\u{85}', '\u{2028}', '\u{2029}']), "{body}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), message);
    }

    #[test]
    fn the_only_token_is_ours() {
        let mut forged =
            json!({"params": {"name": "x", "_meta": {META_TOKEN: "forged", "progressToken": 1}}});
        drop_token(&mut forged);
        assert_eq!(forged, json!({"params": {"name": "x", "_meta": {"progressToken": 1}}}));
        put_token(&mut forged, "ours");
        assert_eq!(forged["params"]["_meta"], json!({"progressToken": 1, META_TOKEN: "ours"}));
        let mut bare = json!({"method": "tools/call"});
        put_token(&mut bare, "ours");
        assert_eq!(bare["params"]["_meta"][META_TOKEN], "ours");
    }
}
