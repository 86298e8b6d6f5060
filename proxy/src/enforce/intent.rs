//! The last steps before a call is sent: its intent is stored, its token minted.

use std::time::Duration;

use oakallow_policy::audit::{ApprovalRecord, EventData, EventType, ExecutionRecord};
use oakallow_policy::canonical::{base64url, hex};
use oakallow_policy::id::Kind;
use oakallow_policy::life::{Closing, Step};
use oakallow_policy::token::{Binding, Claims, LIFETIME_S_MAX, TokenKey, issuer, sign};
use oakallow_policy::{Decision, Permit, RiskLevel};

use crate::clock;
use crate::enforce::{Life, Prints, Ready};
use crate::event::{self, Subject};
use crate::observe::{Phase, Trail};
use crate::outcome::Outcome;
use crate::refusal::Refusal;

/// How long a critical intent may take to reach the backend.
const CRITICAL_ACK_MAX: Duration = Duration::from_secs(5);

impl Life<'_> {
    /// Writes the intent, then mints. Nothing fails in between except that a critical intent is not
    /// acknowledged, and then the intent gets its outcome here: `call.not_forwarded`.
    pub(super) async fn forward(
        &mut self,
        permit: Permit,
        decision: &Decision<'_>,
        (prints, key): (Prints, &TokenKey),
    ) -> Result<Ready, Refusal> {
        let app = self.app;
        self.advance(Step::Intend(permit.reason()))?;
        let jti = clock::new_id(Kind::Token);
        self.pending.push(event::of_call(
            self.call,
            EventType::CallForwarded,
            self.intent(&permit, prints, &jti),
        ));
        let (trail, began) = (Trail::current(), Trail::current().now());
        let seq = self.flush().await;
        trail.passed(Phase::Intent, began);
        let seq = seq?;
        let outcome = Outcome::begin(app.clone(), Subject::call(self.call), permit.reason());
        let outcome = outcome.holding(self.place.take());
        if decision.risk_level() == RiskLevel::Critical
            && tokio::time::timeout(CRITICAL_ACK_MAX, app.spool.acknowledged(seq)).await.is_err()
        {
            self.advance(Step::Close(Closing::NotForwarded))?;
            outcome.not_forwarded("the backend did not acknowledge the intent of a critical call").await;
            return Err(Refusal::BackendUnavailable);
        }
        app.metrics.tokens_minted.with_label_values(&[self.call.route.name.as_str()]).inc();
        let token = sign(&self.claims(&permit, decision, jti), key);
        Ok(Ready { permit, token, outcome })
    }

    fn intent(&self, permit: &Permit, prints: Prints, jti: &str) -> EventData {
        let approval = |id: &str| ApprovalRecord { id: id.to_owned(), ..ApprovalRecord::default() };
        EventData {
            permit: Some(permit.reason()),
            decision: self.decision.clone(),
            approval: permit.approval().map(approval),
            token_id: Some(jti.to_owned()),
            fingerprint: Some(prints.fingerprint.to_string()),
            execution: Some(ExecutionRecord {
                request_sha256: Some(hex(self.bound.sha256())),
                ..ExecutionRecord::default()
            }),
            ..EventData::default()
        }
    }

    fn claims(&self, permit: &Permit, decision: &Decision<'_>, jti: String) -> Claims {
        let (call, request) = (self.call, self.bound.request());
        let now_s = clock::now_ms() / 1_000;
        let text = |name: &Option<oakallow_policy::Name>| name.as_ref().map(|n| n.as_str().to_owned());
        Claims {
            iss: issuer(&call.names.org),
            aud: call.names.audience.as_str().to_owned(),
            sub: call.names.principal.as_str().to_owned(),
            org: call.names.org.as_str().to_owned(),
            tenant: text(&call.names.tenant),
            tool: call.names.tool.as_str().to_owned(),
            resource: text(&call.names.resource),
            method: text(&call.names.method),
            htm: request.map(|r| r.method.as_str().to_owned()),
            htu: request.map(|r| r.uri.to_string()),
            bnd: if request.is_some() { Binding::Request } else { Binding::None },
            bdh: request.map(|r| base64url(&r.body_sha256)),
            ah: Some(base64url(&call.arguments_sha256)),
            apr: permit.approval().map(str::to_owned),
            pol: permit.policy_version(),
            lvl: decision.resolved_from().as_str().to_owned(),
            jti,
            txn: call.txn.clone(),
            iat: now_s,
            nbf: now_s,
            exp: now_s + LIFETIME_S_MAX,
        }
    }
}
