//! Text that somebody else wrote, made safe to read: what cannot be seen is shown by its number, so that
//! what an approver reads is what will be sent.

use oakallow_policy::id::is_invisible;

/// A stretch of text; `odd` ones stand for a character that cannot be seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) odd: bool,
}

/// Splits a text at control, bidirectional and invisible characters. Line breaks stay.
pub(super) fn visible(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    for c in text.chars() {
        if c == '\n' || !(is_invisible(c) || is_odd_space(c)) {
            plain.push(c);
            continue;
        }
        if !plain.is_empty() {
            pieces.push(Piece { text: std::mem::take(&mut plain), odd: false });
        }
        pieces.push(Piece { text: format!("U+{:04X}", u32::from(c)), odd: true });
    }
    if !plain.is_empty() {
        pieces.push(Piece { text: plain, odd: false });
    }
    pieces
}

/// Spaces that look like the ordinary one, or like nothing.
fn is_odd_space(c: char) -> bool {
    c != ' ' && c.is_whitespace()
}

/// How long until `deadline_ms`, in the two largest units; for a page without its script.
pub(super) fn remaining(deadline_ms: u64, now_ms: u64) -> String {
    let seconds = deadline_ms.saturating_sub(now_ms) / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `1,234`
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `100 kB`: of 1,000 bytes, rounded, never none.
pub(super) fn kilobytes(bytes: usize) -> String {
    format!("{} kB", grouped(bytes.saturating_add(500).div_euclid(1_000).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_shown_by_its_number() {
        let pieces = visible("pay \u{202e}evil\u{200b}\u{a0}\n\u{7}<b>");
        let shown: String = pieces.iter().map(|p| p.text.as_str()).collect();
        assert_eq!(shown, "pay U+202EevilU+200BU+00A0\nU+0007<b>");
        assert_eq!(pieces.iter().filter(|p| p.odd).count(), 4);
    }

    #[test]
    fn time_left_in_two_units() {
        assert_eq!(remaining(59_999, 0), "59 s");
        assert_eq!(remaining(3_599_000, 0), "59 min 59 s");
        assert_eq!(remaining(7 * 86_400_000, 0), "7 d 0 h");
        assert_eq!(remaining(0, 5), "0 s");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!((grouped(999), grouped(2_000)), ("999".to_owned(), "2,000".to_owned()));
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!((kilobytes(3), kilobytes(100_014)), ("1 kB".to_owned(), "100 kB".to_owned()));
    }
}
