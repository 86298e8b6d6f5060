//! The other side: the approver who decides, the administrator who configures, the auditor who reads.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Agent, Answer};
use crate::wait::until;

const EXPORT_MAX: Duration = Duration::from_secs(600);

/// A management key, and an approver's key.
#[derive(Clone)]
pub struct Control {
    /// Where the backend is.
    pub url: String,
    management: Agent,
    approver: Agent,
}

impl Control {
    /// With these keys.
    #[must_use]
    pub fn new(url: &str, management: &str, approver: &str) -> Self {
        let (management, approver) = (Agent::new(url, management), Agent::new(url, approver));
        Self { url: url.to_owned(), management, approver }
    }

    /// With the management key.
    #[must_use]
    pub fn management(&self) -> &Agent {
        &self.management
    }

    /// With the approver's key.
    #[must_use]
    pub fn approver(&self) -> &Agent {
        &self.approver
    }

    /// Creates something; what the backend shows of it.
    pub async fn create(&self, path: &str, body: Value) -> Value {
        let answer = self.management.post(path, &body).await;
        assert!(answer.status < 300, "POST {path} {body}: {answer:#?}");
        answer.body
    }

    /// Pending approvals of a tool, newest first.
    pub async fn pending(&self, tool: &str) -> Vec<Value> {
        let list = self.approver.get("/v1/approvals?status=pending&limit=100").await.expect(200);
        let all = list.body["data"].as_array().cloned().unwrap_or_else(|| panic!("no list: {list:#?}"));
        all.into_iter().filter(|approval| approval["tool_name"] == tool).collect()
    }

    /// Waits until exactly one approval of the tool is pending; its id.
    pub async fn await_pending(&self, tool: &str) -> String {
        until(&format!("a pending approval of {tool}"), async || {
            let pending = self.pending(tool).await;
            assert!(pending.len() < 2, "several pending approvals of {tool}: {pending:#?}");
            pending.first().map(|approval| approval["id"].as_str().expect("an id").to_owned())
        })
        .await
    }

    /// An approval, as its approver sees it.
    pub async fn approval(&self, id: &str) -> Value {
        self.approver.get(&format!("/v1/approvals/{id}")).await.expect(200).body
    }

    /// Approves.
    pub async fn approve(&self, id: &str) {
        let _ = self.decide(id, "approved", "go ahead").await.expect(200);
    }

    /// Denies, with a note.
    pub async fn deny(&self, id: &str, note: &str) {
        let _ = self.decide(id, "denied", note).await.expect(200);
    }

    /// Decides.
    pub async fn decide(&self, id: &str, decision: &str, note: &str) -> Answer {
        let path = format!("/v1/approvals/{id}/decide");
        self.approver.post(&path, &json!({"decision": decision, "note": note})).await
    }

    /// The whole audit log, in order of arrival.
    pub async fn audit(&self) -> Vec<Value> {
        // That of a long run takes its time.
        let export =
            self.management.request(reqwest::Method::GET, "/v1/audit/export", "").timeout(EXPORT_MAX);
        let lines = export.send().await.expect(200).text;
        lines.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect()
    }

    /// The events of one call, in order of time.
    pub async fn life(&self, txn: &str) -> Vec<Value> {
        self.audit().await.into_iter().filter(|event| event["txn"] == txn).collect()
    }

    /// Waits until the life of a call has an event of this type; the types of all of them, in order.
    pub async fn await_event(&self, txn: &str, kind: &str) -> Vec<Value> {
        until(&format!("{kind} of {txn}"), async || {
            let life = self.life(txn).await;
            life.iter().any(|event| event["type"] == kind).then_some(life)
        })
        .await
    }
}
