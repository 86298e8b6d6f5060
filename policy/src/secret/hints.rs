//! What a first look, at each byte once, finds worth a second one. It may find too much, never too little.

use super::{DIGITS, JWT_START, STARTS, is_between};

/// So many bytes of how a word begins are looked at first.
const BEGINNING_BYTES: usize = 3;

/// What was found.
#[derive(Default)]
pub(super) struct Hints {
    pub(super) key_block: bool,
    pub(super) key: bool,
    pub(super) bearer: bool,
    pub(super) assigned: bool,
    pub(super) scheme: bool,
    pub(super) digits: bool,
}

impl Hints {
    pub(super) fn of(text: &str) -> Self {
        let (mut hints, mut digits, mut begins_word) = (Self::default(), 0, true);
        let bytes = text.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let look = Look::at(*byte);
            let began = std::mem::replace(&mut begins_word, look.is(Look::BETWEEN));
            if look.is(Look::DIGIT) {
                digits += 1;
                hints.digits |= digits >= DIGITS.0;
                continue;
            }
            if !look.is(Look::JOINS) {
                digits = 0;
            }
            if look.is(Look::MARK) || began && look.is(Look::BEGINS) {
                hints.look_closer(*byte, bytes.get(at..).unwrap_or_default(), began);
            }
        }
        hints
    }

    /// At one byte, and what stands behind it.
    fn look_closer(&mut self, byte: u8, rest: &[u8], begins_word: bool) {
        match byte {
            b'-' => self.key_block |= rest.starts_with(b"-----BEGIN"),
            b'=' => self.assigned = true,
            b':' => self.scheme |= rest.starts_with(b"://"),
            b'b' | b'B' => {
                self.bearer |= rest.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer"));
            }
            _ => {}
        }
        if begins_word {
            self.key |= STARTS.iter().chain([&JWT_START]).any(|start| begins_alike(rest, start));
        }
    }
}

/// What one byte may be part of; most are part of nothing.
#[derive(Clone, Copy, Default)]
struct Look(u8);

impl Look {
    const DIGIT: u8 = 1;
    /// Stands between groups of digits.
    const JOINS: u8 = 2;
    /// Something else may begin with it.
    const MARK: u8 = 4;
    /// A secret begins with it, if a word does.
    const BEGINS: u8 = 8;
    /// A word may begin behind it. White space that is not ASCII ends a word as well.
    const BETWEEN: u8 = 16;

    #[expect(clippy::indexing_slicing, reason = "when it is compiled, and within bounds")]
    const ALL: [Self; 256] = {
        let mut all = [Self(0); 256];
        let mut byte = 0;
        while byte < all.len() {
            all[byte] = Self::of(byte as u8);
            byte += 1;
        }
        all
    };

    const fn of(byte: u8) -> Self {
        let mut look = match byte {
            b'0'..=b'9' => Self::DIGIT,
            b' ' => Self::JOINS,
            b'-' => Self::JOINS | Self::MARK,
            b'=' | b':' | b'b' | b'B' => Self::MARK,
            b'o' | b's' | b'g' | b'x' | b'A' | b'e' => Self::BEGINS,
            _ => 0,
        };
        let c = byte as char;
        if c.is_whitespace() || is_between(c) || !byte.is_ascii() {
            look |= Self::BETWEEN;
        }
        Self(look)
    }

    fn at(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or_default()
    }

    const fn is(self, part: u8) -> bool {
        self.0 & part != 0
    }
}

fn begins_alike(rest: &[u8], start: &str) -> bool {
    start.as_bytes().get(..BEGINNING_BYTES).is_some_and(|beginning| rest.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_is_seen_at_the_first_look() {
        for start in STARTS.iter().chain([&JWT_START]) {
            for before in ["", " ", "\u{a0}", "\u{b}", "(", "%20\""] {
                assert!(Hints::of(&format!("{before}{start}")).key, "{before}{start}");
            }
        }
    }
}
