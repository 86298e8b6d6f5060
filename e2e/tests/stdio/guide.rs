//! What the guide shows of a client's configuration works.

use std::fs;

use oakallow_e2e::process::repository;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::{Wrapper, Wrapping, bare_server};
use serde_json::Value;

#[tokio::test]
async fn the_configuration_of_the_guide_is_what_starts_here() {
    let guide = fs::read_to_string(repository().join("docs/guide/stdio.md")).unwrap();
    let block = guide.split("```json").nth(1).unwrap().split("```").next().unwrap();
    let shown: Value = serde_json::from_str(block).unwrap();
    let shown = &shown["mcpServers"]["files"];
    let stack = Stack::start().await;
    let wrapping = Wrapping::new(&stack, "guide", serde_json::json!({})).await;
    let server = bare_server(&wrapping.dir().join("reached"));
    let words: Vec<&str> =
        shown["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let ours = wrapping.arguments(&server);
    let end = ours.iter().position(|word| word == "--").unwrap();
    // The same words, but for where the file is and what the server's command is.
    for (shown, ours) in words.iter().zip(&ours).take(end + 1).filter(|(shown, _)| !shown.ends_with(".yaml"))
    {
        assert_eq!(shown, ours);
    }
    let (name, _) = shown["env"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(name, "OAKALLOW_API_KEY");
    let _ = Wrapper::ready(&wrapping, &server, stack.env("OAKALLOW_ACME_KEY")).await;
}
