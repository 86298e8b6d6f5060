//! The permit: the value without which nothing is forwarded.
//!
//! Its fields are private and it is made only here, from a decision that allows the call. A forwarding
//! function that takes a [`Permit`] therefore cannot be called for a call that was not permitted: a
//! bypass does not compile:
//!
//! ```compile_fail,E0451
//! use oakallow_policy::{Permit, PermitReason};
//! let forged = Permit { reason: PermitReason::Rule, approval: None, policy_version: 7 };
//! ```
//!
//! Nor can one be copied, to forward a second call, or read from somewhere:
//!
//! ```compile_fail,E0599
//! use oakallow_policy::Permit;
//! fn twice(permit: Permit) -> (Permit, Permit) {
//!     (permit.clone(), permit)
//! }
//! ```
//!
//! ```compile_fail,E0277
//! let forged: oakallow_policy::Permit = serde_json::from_str("{}").unwrap();
//! ```
//!
//! The decision that it rests on comes from resolution alone, see [`Decision`].

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::resolve::Decision;
use crate::rule::Permission;

/// Why a call may run; recorded with the intent, and checked again by `oakallow audit verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermitReason {
    /// Resolution said `allowed`.
    Rule,
    /// A person approved this very call, and the approval was consumed for it.
    Approval,
    /// A time-boxed grant covers it.
    Grant,
    /// The route passes such requests through by configuration: protocol plumbing, not a tool call.
    Passthrough,
    /// The org only observes.
    Shadow,
}

/// Leave to forward one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    reason: PermitReason,
    approval: Option<String>,
    policy_version: u64,
}

/// An approval that the backend has consumed for exactly one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumption {
    /// `apr_…`
    pub approval_id: String,
    /// The call that was approved.
    pub fingerprint: Fingerprint,
    /// The life of a call for which it was consumed.
    pub txn: String,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum NoPermit {
    #[error("the decision is `{0}`, not `allowed`")]
    NotAllowed(Permission),
    #[error("the decision is `{0}`: an approval does not lift it")]
    NotApprovable(Permission),
    #[error("the approval was given for another call")]
    OtherCall,
    #[error("the approval was consumed by another call")]
    OtherTxn,
}

impl Permit {
    /// By resolution alone.
    pub fn by_rule(decision: &Decision<'_>) -> Result<Self, NoPermit> {
        match decision.permission() {
            Permission::Allowed => Ok(Self {
                reason: PermitReason::Rule,
                approval: None,
                policy_version: decision.policy_version(),
            }),
            other => Err(NoPermit::NotAllowed(other)),
        }
    }

    /// By a consumed approval, for a call that resolution (asked again at release) still sends to a
    /// person.
    pub fn by_approval(
        decision: &Decision<'_>,
        consumption: &Consumption,
        call: Fingerprint,
        txn: &str,
    ) -> Result<Self, NoPermit> {
        match decision.permission() {
            Permission::RequiresApproval if consumption.fingerprint != call => Err(NoPermit::OtherCall),
            Permission::RequiresApproval if consumption.txn != txn => Err(NoPermit::OtherTxn),
            Permission::RequiresApproval => Ok(Self {
                reason: PermitReason::Approval,
                approval: Some(consumption.approval_id.clone()),
                policy_version: decision.policy_version(),
            }),
            other => Err(NoPermit::NotApprovable(other)),
        }
    }

    /// For a request that is no tool call and that the route's configuration passes through.
    #[must_use]
    pub fn passthrough(policy_version: u64) -> Self {
        Self { reason: PermitReason::Passthrough, approval: None, policy_version }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> PermitReason {
        self.reason
    }

    /// The approval, when a person approved.
    #[must_use]
    pub fn approval(&self) -> Option<&str> {
        self.approval.as_deref()
    }

    /// The policy it rests on.
    #[must_use]
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }
}
