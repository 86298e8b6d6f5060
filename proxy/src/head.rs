//! The head of an HTTP/1 request as it came, byte by byte.
//!
//! Pingora's parser is lenient where others are not: it takes bare line feeds for line ends, and drops
//! Content-Length where Transfer-Encoding stands beside it. Whoever is before or behind us may read such
//! a request as another one, or as two (request smuggling). What RFC 9112 lets a server refuse is
//! therefore refused, on the bytes themselves.
//!
//! Out of scope: HTTP/2, whose frames leave none of this open, and what the fields mean.

/// What has a length of its own must say it in at most this many digits: more than any body may have.
const LENGTH_DIGITS_MAX: usize = 18;

/// What the head says about the length of the body.
#[derive(Default)]
struct Framing {
    lengths: usize,
    encodings: usize,
    hosts: usize,
}

/// Refuses a head that two readers may understand differently.
pub fn check(raw: &[u8]) -> Result<(), &'static str> {
    let mut lines = lines(raw)?.into_iter();
    let first = lines.next().ok_or("the request line is missing")?;
    let http_1_0 = request_line(first)?;
    let mut framing = Framing::default();
    for line in lines {
        field(line, &mut framing)?;
    }
    if framing.hosts != 1 {
        return Err("a request has exactly one Host");
    }
    if framing.lengths + framing.encodings > 1 {
        return Err("a request says once how long its body is");
    }
    if http_1_0 && framing.encodings > 0 {
        return Err("HTTP/1.0 has no Transfer-Encoding");
    }
    Ok(())
}

/// The lines between CRLFs. Empty lines before the request line are let pass (RFC 9112 section 2.2).
fn lines(raw: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut head = raw;
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    let head = head.strip_suffix(b"\r\n\r\n").ok_or("the lines of a request end with CR LF")?;
    let mut lines = Vec::new();
    let mut rest = head;
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        let (line, after) = match end.and_then(|at| Some((rest.get(..at)?, rest.get(at + 2..)?))) {
            Some((line, after)) => (line, Some(after)),
            None => (rest, None),
        };
        if line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Err("the lines of a request end with CR LF");
        }
        lines.push(line);
        match after {
            Some(after) => rest = after,
            None => return Ok(lines),
        }
    }
}

/// Whether the request line says HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, &'static str> {
    let parts: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return Err("a request line is a method, a target and a version, with one space between them");
    };
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return Err("the method is not a token");
    }
    if target.is_empty() || target.iter().any(|b| b.is_ascii_control()) {
        return Err("the request target has a control character");
    }
    match *version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err("the version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

fn field(line: &[u8], framing: &mut Framing) -> Result<(), &'static str> {
    if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        return Err("a field is not folded over several lines");
    }
    let colon = line.iter().position(|b| *b == b':').ok_or("a field has a name, a colon and a value")?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err("the name of a field is a token, directly before its colon");
    }
    if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err("a field's value has a control character");
    }
    let value = value.trim_ascii();
    if name.eq_ignore_ascii_case(b"content-length") {
        framing.lengths += 1;
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if !digits || value.len() > LENGTH_DIGITS_MAX {
            return Err("Content-Length is a number of bytes, digits only");
        }
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        framing.encodings += 1;
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err("the only Transfer-Encoding is chunked");
        }
    } else if name.eq_ignore_ascii_case(b"host") {
        framing.hosts += 1;
    }
    Ok(())
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str, fields: &str) -> Vec<u8> {
        format!("{line}\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn what_clients_send_is_let_pass() {
        for good in [
            head("POST /a?b=c HTTP/1.1", "Host: a\r\n"),
            head("POST /a HTTP/1.1", "host:a\r\nContent-Length:  5 \r\n"),
            head("POST /a HTTP/1.1", "Host: a\r\nTransfer-Encoding: Chunked\r\nX-Empty:\r\n"),
            head("GET /a HTTP/1.0", "Host: a\r\nX-Text: gr\u{fc}n\ttab\r\n"),
            [b"\r\n".to_vec(), head("POST /a HTTP/1.1", "Host: a\r\n")].concat(),
        ] {
            assert_eq!(check(&good), Ok(()), "{:?}", String::from_utf8_lossy(&good));
        }
    }

    #[test]
    fn what_readers_disagree_on_is_refused() {
        let line = "POST /a HTTP/1.1";
        for bad in [
            b"POST /a HTTP/1.1\nHost: a\n\n".to_vec(),
            b"POST /a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".to_vec(),
            b"POST /a HTTP/1.1\r\nHost: a\r\n\n".to_vec(),
            b"\nPOST /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            head(line, "Host: a\r\nX: a\rb\r\n"),
            head(line, "Host: a\r\nX: a\0b\r\n"),
            head(line, "Host: a\r\nX: a\r\n folded\r\n"),
            head(line, "Host: a\r\n X: a\r\n"),
            head(line, "Host: a\r\nContent-Length : 5\r\n"),
            head(line, "Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n"),
            head(line, "Host: a\r\nContent-Length: 5, 5\r\n"),
            head(line, "Host: a\r\nContent-Length: +5\r\n"),
            head(line, "Host: a\r\nContent-Length: -5\r\n"),
            head(line, "Host: a\r\nContent-Length: 0x5\r\n"),
            head(line, "Host: a\r\nContent-Length: 5 5\r\n"),
            head(line, "Host: a\r\nContent-Length:\r\n"),
            head(line, "Host: a\r\nContent-Length: 99999999999999999999\r\n"),
            head(line, "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            head(line, "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            head(line, "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"),
            head(line, "Host: a\r\nTransfer-Encoding: xchunked\r\n"),
            head(line, "Host: a\r\nTransfer-Encoding: \u{b}chunked\r\n"),
            head("POST /a HTTP/1.0", "Host: a\r\nTransfer-Encoding: chunked\r\n"),
            head(line, "Host: a\r\nHost: b\r\n"),
            head(line, "X: a\r\n"),
            head(line, "Host: a\r\nno colon\r\n"),
            head(line, "Host: a\r\n: no name\r\n"),
            head("POST  /a HTTP/1.1", "Host: a\r\n"),
            head("POST\t/a HTTP/1.1", "Host: a\r\n"),
            head("POST /a b HTTP/1.1", "Host: a\r\n"),
            head("POST /a", "Host: a\r\n"),
            head("POST /a HTTP/1.2", "Host: a\r\n"),
            head("POST /a http/1.1", "Host: a\r\n"),
            b"\r\n\r\n".to_vec(),
            Vec::new(),
        ] {
            assert!(check(&bad).is_err(), "{:?}", String::from_utf8_lossy(&bad));
        }
    }
}
