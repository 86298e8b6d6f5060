//! MCP servers that speak over standard input and output, behind a proxy that the client starts in their place:
//! with the SDKs that people use and the MCP project's own server, and line by line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

mod calls;
mod ends;
mod guide;
mod lines;
mod observed;
mod sdks;
mod secrets;

use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::AUDIENCE;
use serde_json::{Value, json};

/// Registers tools of the server with what the policy says of them.
async fn govern(stack: &Stack, tools: &[(&str, &str)]) {
    for (tool, permission) in tools {
        let tool = json!({"name": tool, "audience": AUDIENCE, "risk_level": "low", "default_permission": permission});
        stack.control().create("/v1/tools", tool).await;
    }
}

/// The tools of the bare server.
async fn govern_bare(stack: &Stack) {
    let tools = [
        ("show", "allowed"),
        ("note", "allowed"),
        ("hang", "allowed"),
        ("steps", "requires_approval"),
        ("held", "requires_approval"),
        ("hidden", "disabled"),
        ("mcp:resources/read", "disabled"),
    ];
    govern(stack, &tools).await;
}

/// The life of a call in the audit log.
fn txn(answer: &Value) -> &str {
    let result = answer["result"]["_meta"]["oakallow/decision"]["txn"].as_str();
    result.or(answer["error"]["data"]["txn"].as_str()).unwrap_or_else(|| panic!("no txn: {answer:#}"))
}
