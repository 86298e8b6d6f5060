//! Why a call was not forwarded: one table, from which both the HTTP and the MCP answer are made.

use oakallow_policy::audit::DecisionRecord;
use oakallow_policy::id::Name;
use oakallow_policy::wire::{AlreadyExecuted, ApprovalState, ApprovalStatus};

/// A call that is not forwarded (or whose outcome is not known), and why.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the codes and details below say it")]
pub enum Refusal {
    Unauthenticated,
    TenantNotAllowed(&'static str),
    UnknownRoute,
    MethodNotAllowed,
    InvalidRequest(String),
    InvalidArguments { pointer: String, message: String },
    BodyTooLarge { bytes_max: usize },
    BodyTooSlow,
    UnsupportedEncoding,
    UnsupportedMediaType(&'static str),
    SecretInName(&'static str),
    OwnerUnknown,
    Disabled(DecisionRecord),
    Denied(ApprovalState),
    Expired(ApprovalState),
    Cancelled(ApprovalState),
    Pending(ApprovalState),
    AlreadyExecuted(AlreadyExecuted),
    DefinitionChanged,
    TooManyHolds,
    TooManyPending(String),
    IdempotencyConflict(String),
    PolicyUnavailable(String),
    BackendUnavailable,
    IssuerUnavailable(Name),
    AuditUnavailable(String),
    OutOfOrder,
    Draining,
    TooManyConnections,
    TooManyBodies { own: bool },
    UpstreamUnreachable,
    UpstreamTimeout,
    UpstreamBroken,
}

/// The parts of an answer that both forms share.
pub struct Answer {
    /// HTTP status for a plain HTTP client.
    pub status: u16,
    /// Stable.
    pub code: &'static str,
    /// The same for every occurrence.
    pub title: &'static str,
    /// What happened here and what to do about it.
    pub detail: String,
    /// Seconds after which a retry makes sense.
    pub retry_after_s: Option<u64>,
}

impl Refusal {
    /// The stable code: in answers, in events, in metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.table().1
    }

    /// Whether bytes may have reached the tool server.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::UpstreamTimeout | Self::UpstreamBroken)
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let (status, code, title) = self.table();
        let retry_after_s = match self {
            Self::Pending(_) => Some(5),
            Self::TooManyHolds | Self::TooManyPending(_) => Some(30),
            Self::PolicyUnavailable(_)
            | Self::BackendUnavailable
            | Self::IssuerUnavailable(_)
            | Self::AuditUnavailable(_) => Some(10),
            Self::Draining => Some(1),
            Self::TooManyConnections | Self::TooManyBodies { .. } => Some(5),
            _ => None,
        };
        Answer { status, code, title, detail: self.detail(), retry_after_s }
    }

    fn table(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Unauthenticated => (401, "unauthenticated", "Credential missing or not valid"),
            Self::TenantNotAllowed(_) => (403, "tenant_not_allowed", "Tenant not within the credential"),
            Self::UnknownRoute => (404, "unknown_route", "No route for this request"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "The route does not take this method"),
            Self::InvalidRequest(_) => (400, "invalid_request", "The request cannot be read safely"),
            Self::InvalidArguments { .. } => (422, "invalid_arguments", "The arguments do not fit the tool"),
            Self::BodyTooLarge { .. } => (413, "body_too_large", "The body is too large"),
            Self::BodyTooSlow => (408, "body_too_slow", "The body did not arrive in time"),
            Self::UnsupportedEncoding => (415, "unsupported_encoding", "The body must not be encoded"),
            Self::UnsupportedMediaType(_) => {
                (415, "unsupported_media_type", "The body must be announced as JSON")
            }
            Self::SecretInName(_) => (422, "secret_in_name", "A name of this call looks like a secret"),
            Self::OwnerUnknown => (403, "owner_unknown", "Nobody is known to answer for this caller"),
            Self::Disabled(_) => (403, "disabled", "The policy does not allow this call"),
            Self::Denied(_) => (403, "approval_denied", "A person denied this call"),
            Self::Expired(_) => (403, "approval_expired", "Nobody decided in time"),
            Self::Cancelled(_) => (403, "approval_cancelled", "The approval was withdrawn"),
            Self::Pending(_) => (202, "approval_pending", "Waiting for a person"),
            Self::AlreadyExecuted(_) => (409, "already_executed", "This very call has run already"),
            Self::DefinitionChanged => (409, "definition_changed", "The tool is described otherwise by now"),
            Self::TooManyHolds => (429, "too_many_holds", "Too many calls are waiting"),
            Self::TooManyPending(_) => (429, "too_many_pending", "Too many approvals are open"),
            Self::IdempotencyConflict(_) => {
                (422, "idempotency_conflict", "The key was used for another call")
            }
            Self::PolicyUnavailable(_) => (503, "policy_unavailable", "No policy that may decide this"),
            Self::BackendUnavailable => (503, "backend_unavailable", "The backend cannot be reached"),
            Self::IssuerUnavailable(_) => (503, "issuer_unavailable", "The token cannot be checked"),
            Self::AuditUnavailable(_) => (503, "audit_unavailable", "The call could not be recorded"),
            Self::OutOfOrder => (500, "out_of_order", "The proxy is at fault"),
            Self::Draining => (503, "draining", "This proxy is stopping"),
            Self::TooManyConnections => (503, "too_many_connections", "Too many connections are open"),
            Self::TooManyBodies { own } => {
                (if *own { 429 } else { 503 }, "too_many_bodies", "Too many bytes are on their way")
            }
            Self::UpstreamUnreachable => (502, "upstream_unreachable", "The tool server cannot be reached"),
            Self::UpstreamTimeout => (504, "upstream_timeout", "The tool server did not answer in time"),
            Self::UpstreamBroken => (502, "upstream_broken", "The tool server's answer broke off"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Unauthenticated => {
                "send one valid credential: a key (an agent's `oak_agent_…`, or `oak_live_…`) as `X-API-Key`, or what else this listener takes; over stdio the key stands in OAKALLOW_API_KEY".to_owned()
            },
            Self::TenantNotAllowed(detail) | Self::UnsupportedMediaType(detail) => (*detail).to_owned(),
            Self::SecretInName(what) => {
                format!("the {what} has what looks like a secret in it, and names are recorded as they are: leave it out")
            }
            Self::UnknownRoute => {
                "nothing was forwarded: this proxy forwards only what a route identifies".to_owned()
            }
            Self::MethodNotAllowed => "nothing was forwarded: see the route's `methods`".to_owned(),
            Self::InvalidRequest(detail) => detail.clone(),
            Self::InvalidArguments { pointer, message } if pointer.is_empty() => message.clone(),
            Self::InvalidArguments { pointer, message } => format!("at `{pointer}`: {message}"),
            Self::BodyTooLarge { bytes_max } => format!("a body has at most {bytes_max} bytes"),
            Self::BodyTooSlow => "send the body without long pauses".to_owned(),
            Self::UnsupportedEncoding => "send the body without Content-Encoding".to_owned(),
            Self::OwnerUnknown => {
                "nobody was asked: a call is approved by somebody else than who answers for its caller, and the credential does not say who that is; see `owner_claim`, `owner` and `client_owner` of the proxy".to_owned()
            }
            Self::Disabled(d) => {
                format!("disabled by `{}`; ask an administrator of the org if you need it", d.resolved_from)
            }
            Self::Denied(a) => match &a.note {
                Some(note) => format!("{} was denied: {note}", a.reference),
                None => format!("{} was denied", a.reference),
            },
            Self::Expired(a) => format!("{} expired; repeat the call to ask again", a.reference),
            Self::Cancelled(a) => format!("{} was cancelled", a.reference),
            Self::Pending(a) if a.status == ApprovalStatus::Approved => {
                format!("not run yet: {} is approved and waits for its turn; repeat the same call to pick it up", a.reference)
            }
            Self::Pending(a) => {
                format!("not run yet: {} waits for approval; repeat the same call to pick it up", a.reference)
            }
            Self::AlreadyExecuted(e) => format!(
                "it ran as {} with the outcome `{}` and was not run again; send a new Idempotency-Key to mean a new call",
                e.execution, e.outcome
            ),
            Self::DefinitionChanged => {
                "the tool's definition changed while the call waited for a person, so nothing was run; repeat the call".to_owned()
            }
            Self::TooManyHolds => "wait until some of the pending calls are decided".to_owned(),
            Self::TooManyPending(detail) | Self::IdempotencyConflict(detail) => detail.clone(),
            Self::PolicyUnavailable(detail) | Self::AuditUnavailable(detail) => detail.clone(),
            Self::IssuerUnavailable(issuer) => {
                format!("the keys of the issuer `{issuer}` cannot be read; repeat the call later")
            }
            Self::BackendUnavailable => "nothing was run; repeat the call later".to_owned(),
            Self::OutOfOrder => "nothing was run: a step would have been taken out of order; please report it".to_owned(),
            Self::Draining => "nothing was run; repeat the call".to_owned(),
            Self::TooManyConnections => "nothing was read; close those that are not needed, then repeat the call".to_owned(),
            Self::TooManyBodies { own: true } => {
                "nothing was run; wait until some of your requests are answered, then repeat the call".to_owned()
            }
            Self::TooManyBodies { own: false } => "nothing was run; repeat the call later".to_owned(),
            Self::UpstreamUnreachable => "nothing was run".to_owned(),
            Self::UpstreamTimeout | Self::UpstreamBroken => {
                "the call was sent and may have run; it is not repeated by the proxy".to_owned()
            }
        }
    }
}

/// Adds what programs need to know of this refusal to the members of its answer.
pub fn more(refusal: &Refusal, body: &mut serde_json::Value) {
    use oakallow_policy::timestamp::rfc3339;
    use serde_json::json;
    let more = match refusal {
        Refusal::Disabled(d) => json!({
            "permission": d.permission, "resolved_from": d.resolved_from, "policy_version": d.policy_version,
        }),
        Refusal::Pending(a) => json!({
            "status": "pending", "approval_id": a.id, "reference": a.reference, "expires_at": rfc3339(a.expires_at),
        }),
        Refusal::Denied(a) | Refusal::Expired(a) | Refusal::Cancelled(a) => {
            json!({"approval_id": a.id, "reference": a.reference, "note": a.note})
        }
        Refusal::AlreadyExecuted(e) => {
            json!({"execution": e.execution, "time": rfc3339(e.time), "outcome": e.outcome})
        }
        Refusal::InvalidArguments { pointer, .. } => json!({"pointer": pointer}),
        _ => return,
    };
    if let (Some(body), serde_json::Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
}
