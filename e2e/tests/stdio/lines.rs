//! Lines that are refused: whatever two readers could take for different messages.

use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::{Wrapper, Wrapping, bare_server, reached};
use oakallow_e2e::wait::until;
use serde_json::{Value, json};

use crate::govern_bare;

#[tokio::test]
async fn what_readers_disagree_on_does_not_reach_the_server() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "strict", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    let before =
        until("the handshake at the server", async || Some(reached(&file).len()).filter(|n| *n == 2)).await;
    let call = r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"hidden"}}"#;
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let large = "x".repeat(1024 * 1024);
    let refused = [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"hidden"}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"note","Name":"hidden"}}"#
            .to_owned(),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{deep}}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":"{large}"}}}}"#),
        format!(r#"[{{"jsonrpc":"2.0","id":1,"method":"ping"}},{call}]"#),
        "not JSON".to_owned(),
    ];
    for (number, line) in refused.iter().enumerate() {
        wrapper.write(&format!("{line}\n"));
        let errors = |all: &str| {
            let said = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            (said.filter(|m| !m["error"].is_null() || m.is_array()).count() > number).then_some(())
        };
        wrapper.process.until(&format!("an error for {}", &line[..line.len().min(90)]), errors).await;
    }
    assert_eq!(reached(&file).len(), before);

    // Inside of one message there may be a carriage return, which this server takes for the end of a line.
    wrapper.write(&format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":20,\"method\":\"ping\",\"params\":{{\"a\":\r{call}\r}}}}\n"
    ));
    assert_eq!(wrapper.answer(&json!(20)).await["result"], json!({}));
    wrapper.write("\n \r\n");
    let methods: Vec<Value> = reached(&file)[before..].iter().map(|m| m["method"].clone()).collect();
    assert_eq!(methods, ["ping"]);
}

#[tokio::test]
async fn of_two_requests_with_one_id_the_second_is_refused() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "twice", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.call(5, "steps", &json!({}));
    let _ = stack.control().await_pending("steps").await;
    wrapper.call(5, "note", &json!({"number": 5}));
    let refused = wrapper.answer(&Value::Null).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("id of its own"), "{refused:#}");
    // The text "5" is another id.
    wrapper.request(&json!("5"), "tools/call", &json!({"name": "note"}));
    let _ = wrapper.answer(&json!("5")).await;
    assert_eq!(reached(&file).iter().filter(|m| m["params"]["name"] == "note").count(), 1);
}

#[tokio::test]
async fn a_batch_of_plumbing_passes_one_by_one() {
    let stack = Stack::start().await;
    let wrapping = Wrapping::new(&stack, "batch", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    let ping = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    wrapper.say(&json!([ping(1), ping(2)]));
    for id in [1, 2] {
        assert_eq!(wrapper.answer(&json!(id)).await["result"], json!({}));
    }
}

/// Reads a line, then says what stands behind it in the table; a call never gets to it.
const LIAR: &str = r#"
echo 'a banner that is no message'
read -r line
echo '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"I ran"}]}}'
echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"told"}}'
read -r line
echo '[{"jsonrpc":"2.0","id":2,"result":{"tools":[{"name":"hidden"},{"name":"note"}]}}]'
exec cat > /dev/null
"#;

#[tokio::test]
async fn the_server_answers_what_it_was_asked_and_nothing_else() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "liar", json!({})).await;
    let server = ["sh", "-c", LIAR].map(str::to_owned);
    let key = ("OAKALLOW_API_KEY", stack.env("OAKALLOW_ACME_KEY"));
    let mut wrapper = Wrapper::start(&wrapping, &server, &[key]);
    wrapper.call(1, "held", &json!({}));
    let _ = stack.control().await_pending("held").await;
    wrapper.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    wrapper.process.until("what it told", |all| all.contains("\"told\"").then_some(())).await;
    assert!(wrapper.said().iter().all(|m| m["id"] != 1), "an answer to a call that is held");
    wrapper
        .process
        .until("a warning", |all| all.contains("answers what it was not asked").then_some(()))
        .await;
    wrapper.request(&json!(2), "tools/list", &json!({}));
    let list = wrapper.answer(&json!(2)).await;
    assert_eq!(list["result"]["tools"], json!([{"name": "note"}]), "a list in a batch is a list");
}
