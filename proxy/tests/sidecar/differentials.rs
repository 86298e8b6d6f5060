//! Requests that a tool server may read otherwise than the proxy does.

use serde_json::{Value, json};

use crate::support::policy::AGENT;
use crate::support::sidecar::{Sidecar, client};

#[tokio::test]
async fn a_tool_takes_the_body_for_what_it_was_read_as() {
    let sidecar = Sidecar::start().await;
    let url = format!("http://{}/tools/read", sidecar.proxy.data);
    let body = r#"{"id":"x&id=prod&y="}"#;
    for announced in [None, Some("application/x-www-form-urlencoded"), Some("text/plain;charset=UTF-8")] {
        let mut call = client().post(&url).header("x-api-key", AGENT).body(body);
        if let Some(announced) = announced {
            call = call.header("content-type", announced);
        }
        assert_eq!(call.send().await.unwrap().status(), 200, "{announced:?}");
        let seen = sidecar.upstream.seen().pop().unwrap();
        let types: Vec<_> = seen.headers.get_all("content-type").iter().collect();
        assert_eq!(types, ["application/json"]);
        assert_eq!(seen.body, body);
    }
}

#[tokio::test]
async fn a_body_that_is_announced_as_something_else_is_refused() {
    let sidecar = Sidecar::start().await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let form = "application/x-www-form-urlencoded";
    for (path, body, announced) in [
        ("/tools/read", "{}", &["multipart/form-data; boundary=x"][..]),
        ("/tools/read", "{}", &["text/xml"]),
        ("/tools/read", "{}", &["application/json; charset=utf-16"]),
        ("/tools/read", "{}", &["application/json", form]),
        ("/mcp", &ping, &[form]),
        ("/mcp", &ping, &["application/json", "application/json"]),
        ("/mcp", &ping, &[]),
    ] {
        let mut request = client().post(format!("http://{}{path}", sidecar.proxy.data));
        for announced in announced {
            request = request.header("content-type", *announced);
        }
        let answer = request.header("x-api-key", AGENT).body(body.to_owned()).send().await.unwrap();
        assert_eq!(answer.status(), 415, "{path} {announced:?}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "unsupported_media_type");
    }
    assert_eq!(sidecar.upstream.count(), 0);
}
