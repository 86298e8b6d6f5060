//! Server-sent events: a stream of bytes cut into messages (HTML standard, section 9.2).

/// One message, its fields read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `event:`
    pub event: Option<String>,
    /// `data:`, lines joined.
    pub data: String,
    /// `id:`
    pub id: Option<String>,
}

impl Message {
    /// Reads the fields of a raw message.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        let mut message = Self::default();
        let mut data: Vec<&str> = Vec::new();
        for line in text.split(['\n', '\r']).filter(|l| !l.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => message.event = Some(value.to_owned()),
                "data" => data.push(value),
                "id" if !value.contains('\0') => message.id = Some(value.to_owned()),
                _ => {}
            }
        }
        message.data = data.join("\n");
        message
    }
}

/// Cuts a stream into raw messages, each with the blank line that ends it.
pub struct Splitter {
    buffer: Vec<u8>,
    bytes_max: usize,
}

impl Splitter {
    /// A message of more than `bytes_max` makes the splitter [overfull](Self::is_overfull).
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), bytes_max }
    }

    /// Adds a chunk and returns the messages that are complete now.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        self.buffer.extend_from_slice(chunk);
        let mut messages = Vec::new();
        while let Some(end) = end_of_message(&self.buffer) {
            let rest = self.buffer.split_off(end);
            messages.push(std::mem::replace(&mut self.buffer, rest));
        }
        messages
    }

    /// Whether an unfinished message is too long.
    #[must_use]
    pub fn is_overfull(&self) -> bool {
        self.buffer.len() > self.bytes_max
    }

    /// What came after the last complete message.
    #[must_use]
    pub fn rest(self) -> Vec<u8> {
        self.buffer
    }
}

/// Just after the first blank line; lines end with LF, CRLF or CR.
fn end_of_message(buffer: &[u8]) -> Option<usize> {
    let mut line_is_empty = false;
    let mut at = 0;
    while let Some(byte) = buffer.get(at) {
        let end = match byte {
            b'\r' => match buffer.get(at + 1) {
                Some(b'\n') => at + 2,
                Some(_) => at + 1,
                // A LF may follow with the next chunk.
                None => return None,
            },
            b'\n' => at + 1,
            _ => {
                line_is_empty = false;
                at += 1;
                continue;
            }
        };
        if line_is_empty {
            return Some(end);
        }
        line_is_empty = true;
        at = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_whatever_the_chunks() {
        let stream = b"event: a\ndata: 1\ndata: 2\nid: 7\n\n: comment\n\ndata: x\r\n\r\ntail";
        for size in 1..stream.len() {
            let mut splitter = Splitter::new(1_000);
            let messages: Vec<Vec<u8>> = stream.chunks(size).flat_map(|c| splitter.push(c)).collect();
            assert_eq!(messages.len(), 3, "chunks of {size}");
            let first = Message::parse(&messages[0]);
            assert_eq!(first.data, "1\n2");
            assert_eq!(first.event.as_deref(), Some("a"));
            assert_eq!(first.id.as_deref(), Some("7"));
            assert_eq!(Message::parse(&messages[2]).data, "x");
            assert_eq!(messages.concat(), stream[..stream.len() - 4]);
            assert_eq!(splitter.rest(), b"tail");
        }
    }
}
