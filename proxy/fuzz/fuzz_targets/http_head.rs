//! The head of a request: no panic; what is accepted is one head to hyper's parser too, all of it, which says
//! once at most how long the body is, and names one host.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oakallow_proxy::head;

fuzz_target!(|bytes: &[u8]| {
    if head::check(bytes).is_err() {
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => assert_eq!(end, bytes.len(), "something follows the head"),
        Ok(httparse::Status::Partial) => panic!("an unfinished head"),
        // Pingora refuses these: too many fields for anybody, and octets that are no token.
        Err(_) => return,
    }
    let count =
        |name: &str| request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    assert_eq!(count("host"), 1);
    assert!(count("content-length") + count("transfer-encoding") <= 1);
    if request.version == Some(0) {
        assert_eq!(count("transfer-encoding"), 0, "HTTP/1.0 has none");
    }
});
