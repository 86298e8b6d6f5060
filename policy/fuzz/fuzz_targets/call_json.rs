//! The strict JSON reader: no panic; what it accepts is what `serde_json` reads; the canonical form is
//! accepted again and does not change; a fingerprint exists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oakallow_policy::call::Call;
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::{canonical, strict_json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = strict_json::parse(bytes) else { return };
    let theirs: serde_json::Value =
        serde_json::from_slice(bytes).expect("accepted by the strict reader only");
    assert_eq!(value, theirs);

    let canonical = canonical::json_bytes(&value).expect("JSON has a canonical form");
    let again = strict_json::parse(&canonical).expect("the canonical form is strict JSON");
    assert_eq!(canonical::json_bytes(&again).expect("JSON has a canonical form"), canonical);

    let call = Call {
        org: "demo",
        tenant: None,
        principal: "agent",
        audience: "default",
        tool: "tool",
        resource: None,
        method: None,
    };
    let one = Fingerprint::of(&call, "route", None, &value).expect("JSON has a fingerprint");
    let two = Fingerprint::of(&call, "route", None, &again).expect("JSON has a fingerprint");
    assert_eq!(one, two, "the same arguments, written differently");

    if let Some(object) = value.as_object() {
        let known = ["jsonrpc", "id", "method", "params"];
        if strict_json::check_case(object, known).is_ok() {
            let odd = |key: &String| known.iter().any(|k| key != k && key.eq_ignore_ascii_case(k));
            assert!(!object.keys().any(odd), "a key that differs only by case");
        }
    }
});
