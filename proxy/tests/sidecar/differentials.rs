//! Requests that a tool server may read otherwise than the proxy does.

use oakallow_policy::audit::EventType;
use serde_json::{Value, json};

use crate::support::policy::AGENT;
use crate::support::raw::{exchange, statuses};
use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

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

/// What the problem document says about a refused request.
async fn refused(sidecar: &Sidecar, path: &str, fields: &[(&str, &str)]) -> String {
    let mut call = client().post(format!("http://{}{path}", sidecar.proxy.data)).header("x-api-key", AGENT);
    for (name, value) in fields {
        call = call.header(*name, *value);
    }
    let answer = call.body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 400, "{path} {fields:?}");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn a_query_that_nobody_would_see_is_refused() {
    let sidecar = Sidecar::start().await;
    for path in
        ["/tools/read?", "/tools/read?id=prod", "/tools/read?k=%6fak%5fagent_test", "/mcp?tenant=globex"]
    {
        assert!(refused(&sidecar, path, &[]).await.contains("query"), "{path}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn fields_that_readers_take_for_others_are_refused() {
    let sidecar = Sidecar::start().await;
    for name in [
        "X_Oakallow_Token",
        "x-oakallow_token",
        "X_HTTP_Method_Override",
        "X-HTTP-Method-Override",
        "X-Rewrite-URL",
        "X-Original-URI",
        "X-Original-URL",
        "X-Method",
    ] {
        refused(&sidecar, "/tools/read", &[(name, "DELETE")]).await;
        refused(&sidecar, "/mcp", &[(name, "DELETE"), ("content-type", "application/json")]).await;
    }
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn who_is_behind_the_caller_is_not_the_callers_to_say() {
    let sidecar = Sidecar::start().await;
    let names = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "forwarded", "x-real-ip"];
    let call = names.iter().fold(sidecar.call("read"), |call, name| call.header(*name, "10.0.0.1"));
    assert_eq!(call.header("x-request-id", "7").send().await.unwrap().status(), 200);
    let seen = sidecar.upstream.seen().pop().unwrap();
    assert!(names.iter().all(|name| !seen.headers.contains_key(*name)), "{:?}", seen.headers);
    assert_eq!(seen.headers["x-request-id"], "7");
}

#[tokio::test]
async fn the_callers_key_does_not_reach_the_tool_in_any_other_field() {
    let sidecar = Sidecar::start().await;
    for (name, value) in [
        ("cookie", format!("a=1; key={AGENT}")),
        ("cookie", format!("key={}", AGENT.replace('_', "%5F"))),
        ("x-custom", AGENT.to_owned()),
        // user:oak_agent_test
        ("authorization", "Basic dXNlcjpvYWtfYWdlbnRfdGVzdA==".to_owned()),
    ] {
        let said = refused(&sidecar, "/tools/read", &[(name, &value)]).await;
        assert!(said.contains(name) && !said.contains(AGENT), "{said}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    let forms =
        [format!("Bearer {AGENT}"), format!("Token token=\"{AGENT}\""), "<oak_agent_else>".to_owned()];
    for form in &forms {
        let call = sidecar.call("read").header("authorization", form);
        assert_eq!(call.send().await.unwrap().status(), 200, "{form}");
    }
    let seen = sidecar.upstream.seen();
    assert_eq!(seen.len(), forms.len());
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("authorization")));
}

#[tokio::test]
async fn a_body_where_none_is_read_is_refused() {
    let sidecar = Sidecar::start().await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop"}}"#;
    let framed = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{call}", call.len());
    let chunked = format!(
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{call}\r\n0\r\n\r\n",
        call.len()
    );
    let empty = "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned();
    for method in ["GET", "DELETE"] {
        let head =
            format!("{method} /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {AGENT}\r\n");
        for rest in [&framed, &chunked, &empty] {
            let answer = exchange(sidecar.proxy.data, format!("{head}{rest}").as_bytes()).await;
            assert_eq!(statuses(&answer), [400], "{method} {rest}");
        }
        assert_eq!(sidecar.upstream.count(), 0);
    }
    let plain = format!(
        "DELETE /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {AGENT}\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(statuses(&exchange(sidecar.proxy.data, plain.as_bytes()).await), [200]);
}

#[tokio::test]
async fn members_that_differ_only_by_case_are_refused_wherever_they_stand() {
    let sidecar = Sidecar::start().await;
    for body in [r#"{"pad":{"name":"dev","Name":"prod"}}"#, r#"{"pad":[{"id":1,"ID":2}]}"#] {
        let call = sidecar.call("read").body(body);
        assert_eq!(call.send().await.unwrap().status(), 400, "{body}");
        let arguments: Value = serde_json::from_str(body).unwrap();
        let call = json!({"name": "read", "arguments": arguments});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call});
        assert_eq!(sidecar.rpc(&call).send().await.unwrap().status(), 400, "{body}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    let apart = sidecar.call("read").body(r#"{"pad":[{"name":1},{"Name":2}]}"#);
    assert_eq!(apart.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_call_without_arguments_is_another_than_one_whose_arguments_are_empty() {
    let sidecar = Sidecar::start().await;
    for params in [json!({"name": "read"}), json!({"name": "read", "arguments": {}}), json!({"name": "read"})]
    {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        assert_eq!(sidecar.rpc(&call).send().await.unwrap().status(), 200);
    }
    let prints = until("three calls", async || {
        let asked = sidecar.backend.audit().into_iter().filter(|e| e.event.kind == EventType::CallRequested);
        let prints: Vec<_> = asked.filter_map(|e| e.event.data.fingerprint).collect();
        (prints.len() == 3).then_some(prints)
    })
    .await;
    assert_eq!(prints[0], prints[2]);
    assert_ne!(prints[0], prints[1], "an approval of one would let the other through");
}

#[tokio::test]
async fn fields_that_repeat_the_body_are_true_of_it() {
    let sidecar = Sidecar::start().await;
    let call = |id: &str| {
        let call = json!({"name": "read", "arguments": {"id": id}});
        sidecar.rpc(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}))
    };
    for (name, value) in [("mcp-param-id", "prod"), ("mcp-param-other", "dev")] {
        let answer = call("dev").header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{name}");
        let said: Value = answer.json().await.unwrap();
        assert_eq!((&said["error"]["code"], &said["id"]), (&json!(-32_020), &json!(1)));
    }
    let ping = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let alone = sidecar.rpc(&ping).header("mcp-param-id", "dev");
    assert_eq!(alone.send().await.unwrap().status(), 400);
    for name in ["mcp-param-id", "mcp-name", "mcp-method"] {
        let batch = sidecar.rpc(&json!([ping])).header(name, "tools/call");
        assert_eq!(batch.send().await.unwrap().status(), 200, "answered, but");
        assert_eq!(sidecar.upstream.count(), 0, "{name} does not get further");
    }
    assert_eq!(call("dev").header("mcp-param-id", "dev").send().await.unwrap().status(), 200);
    assert_eq!(sidecar.upstream.count(), 1);
}
