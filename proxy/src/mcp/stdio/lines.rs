//! Lines in, each a message, read on a thread of its own: a read that waits for input cannot be given up,
//! and must not keep the process from ending.

use std::io::{BufRead, BufReader, Read};

use tokio::sync::mpsc;

/// What stands in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// More than is taken; it was read over.
    TooLong,
}

/// Lines as they come, until the end.
pub(super) type Lines = mpsc::Receiver<Line>;

/// Reads lines of at most `bytes_max`.
pub(super) fn read(input: impl Read + Send + 'static, bytes_max: usize) -> Lines {
    // One ahead: who sends faster than we take waits, as at any pipe.
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = BufReader::new(input);
        while let Some(line) = next(&mut input, bytes_max) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The next line; `None` at the end, or when reading fails. What the input ends with that is no whole line
/// is no message: whoever wrote it was cut off.
fn next(input: &mut impl BufRead, bytes_max: usize) -> Option<Line> {
    let mut line = Vec::new();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    input.by_ref().take(most).read_until(b'\n', &mut line).ok()?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Some(Line::Whole(line));
    }
    if line.len() <= bytes_max {
        return None;
    }
    loop {
        let (read, ended) = {
            let buffer = input.fill_buf().ok().filter(|buffer| !buffer.is_empty())?;
            match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), false),
            }
        };
        input.consume(read);
        if ended {
            return Some(Line::TooLong);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, bytes_max: usize, buffer: usize) -> Vec<Line> {
        let mut input = BufReader::with_capacity(buffer, text.as_bytes());
        std::iter::from_fn(|| next(&mut input, bytes_max)).collect()
    }

    #[test]
    fn a_line_is_what_stands_before_its_end() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        for buffer in 1..12 {
            assert_eq!(all("ab\n\ncd\r\nrest", 9, buffer), [whole("ab"), whole(""), whole("cd\r")]);
            assert_eq!(
                all("abc\nabcd\nabcdef\nx\n", 3, buffer),
                [whole("abc"), Line::TooLong, Line::TooLong, whole("x")]
            );
            assert_eq!(all("abcdef", 3, buffer), []);
        }
    }
}
