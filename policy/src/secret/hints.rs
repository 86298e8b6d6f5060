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
        let mut rest = text.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            match byte {
                b'0'..=b'9' => digits += 1,
                b' ' | b'-' => hints.key_block |= *byte == b'-' && rest.starts_with(b"-----BEGIN"),
                _ => digits = 0,
            }
            match byte {
                b'0'..=b'9' => hints.digits |= digits >= DIGITS.0,
                b'=' => hints.assigned = true,
                b':' => hints.scheme |= rest.starts_with(b"://"),
                b'b' | b'B' => {
                    hints.bearer |= rest.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer"));
                }
                b'o' | b's' | b'g' | b'x' | b'A' | b'e' if begins_word => {
                    hints.key |= STARTS.iter().chain([&JWT_START]).any(|start| begins_alike(rest, start));
                }
                _ => {}
            }
            // White space that is not ASCII ends a word as well.
            begins_word = {
                let c = char::from(*byte);
                c.is_whitespace() || is_between(c) || !c.is_ascii()
            };
            rest = after;
        }
        hints
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
