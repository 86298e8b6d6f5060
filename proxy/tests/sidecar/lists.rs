//! `tools/list` as the caller may see it.

use serde_json::{Value, json};

use crate::support::policy::AGENT;
use crate::support::sidecar::Sidecar;

const LIST: &str = r#"{"jsonrpc":"2.0","id":"l1","method":"tools/list"}"#;

fn page(names: &[&str]) -> Value {
    let tools: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
    json!({"jsonrpc": "2.0", "id": "l1", "result": {"tools": tools, "nextCursor": "page-2"}})
}

async fn asked(sidecar: &Sidecar) -> String {
    let list: Value = serde_json::from_str(LIST).unwrap();
    let answer = sidecar.rpc(&list).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

fn names(page: &Value) -> Vec<&str> {
    page["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_page_in_json_shows_what_the_caller_may_call() {
    let sidecar = Sidecar::start().await;
    sidecar.upstream.answers("application/json", &page(&["drop", "read", "ask", "DROP"]).to_string());
    let said: Value = serde_json::from_str(&asked(&sidecar).await).unwrap();
    // An unregistered tool needs a person or is disabled, as the rules say: `DROP` is decided like a call.
    assert!(names(&said).starts_with(&["read", "ask"]), "{said:#}");
    assert!(!names(&said).contains(&"drop"), "{said:#}");
    assert_eq!(said["result"]["nextCursor"], "page-2");
}

#[tokio::test]
async fn a_page_of_which_nothing_is_left_keeps_its_cursor() {
    let sidecar = Sidecar::start().await;
    sidecar.upstream.answers("application/json", &page(&["drop"]).to_string());
    let said: Value = serde_json::from_str(&asked(&sidecar).await).unwrap();
    assert_eq!(said, page(&[]));
}

#[tokio::test]
async fn a_page_in_a_stream_is_filtered_and_the_rest_of_the_stream_is_not_touched() {
    let sidecar = Sidecar::start().await;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"hm"}}"#;
    let (full, empty) = (page(&["read", "drop", "ask"]), page(&["drop"]));
    for (sent, kept) in [(full, vec!["read", "ask"]), (empty, vec![])] {
        let stream = format!("event: message\nid: 7\ndata: {note}\n\n: comment\n\nid: 8\ndata: {sent}\n\n");
        sidecar.upstream.answers("text/event-stream", &stream);
        let said = asked(&sidecar).await;
        assert!(said.starts_with(&format!("event: message\nid: 7\ndata: {note}\n\n")), "{said}");
        assert!(said.contains("id: 8\n"), "{said}");
        let data = said.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
        let listed: Value = serde_json::from_str(data).unwrap();
        assert_eq!(names(&listed), kept);
        assert_eq!(listed["result"]["nextCursor"], "page-2");
    }
}

#[tokio::test]
async fn a_tool_that_the_list_does_not_show_is_not_called_either() {
    let sidecar = Sidecar::start().await;
    let call = json!({"name": "drop", "arguments": {}});
    let said = sidecar.rpc(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}));
    let said: Value = said.send().await.unwrap().json().await.unwrap();
    assert_eq!(said["result"]["isError"], true, "{said:#}");
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_list_that_comes_on_a_resumed_stream_or_in_a_batch_is_filtered_too() {
    let sidecar = Sidecar::start().await;
    let stream = format!("id: 8\ndata: {}\n\n", page(&["read", "drop"]));
    sidecar.upstream.answers("text/event-stream", &stream);
    let resumed = reqwest::Client::new()
        .get(format!("http://{}/mcp", sidecar.proxy.data))
        .header("x-api-key", AGENT)
        .header("accept", "text/event-stream")
        .header("last-event-id", "7");
    let said = resumed.send().await.unwrap().text().await.unwrap();
    assert!(said.contains("\"read\"") && !said.contains("drop") && said.starts_with("id: 8\n"), "{said}");

    sidecar.upstream.answers("application/json", &json!([page(&["read", "drop"])]).to_string());
    let said = asked(&sidecar).await;
    assert!(said.contains("\"read\"") && !said.contains("drop"), "{said}");
}

#[tokio::test]
async fn a_list_that_cannot_be_read_strictly_goes_no_further() {
    let sidecar = Sidecar::start().await;
    let odd = [r#""description":"\ud800""#, r#""x":1e999"#];
    for member in odd {
        let list = format!(
            r#"{{"jsonrpc":"2.0","id":"l1","result":{{"tools":[{{"name":"read",{member}}},{{"name":"drop"}}]}}}}"#
        );
        for (kind, body) in [
            ("application/json", list.clone()),
            ("text/event-stream", format!("id: 3\ndata: {list}\n\ndata: {list}")),
        ] {
            sidecar.upstream.answers(kind, &body);
            let said = asked(&sidecar).await;
            assert!(!said.contains("drop") && said.contains("-31502"), "{kind} {member}: {said}");
        }
    }
}
