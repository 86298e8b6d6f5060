//! What travels between proxy, backend and edge worker. One definition for both ends.

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod approval;
mod signed;

pub use approval::{
    AlreadyExecuted, ApprovalAnswer, ApprovalRequest, ApprovalState, ApprovalStates, ApprovalStatesRequest,
    ApprovalStatus, ConsumeRequest, ProxyContext,
};
pub use signed::{PublicKey, Purpose, Secret, Signed, SignedError};

use crate::audit::{Chained, Head};
use crate::id::Name;
use crate::rule::Rule;
use crate::ruleset::OrgPolicy;
use crate::timestamp::UnixMs;

/// `POST /v1/proxies/enroll`: a proxy's first request, with its one-time join token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// `oak_join_…`, good for one enrolment.
    pub join_token: Secret,
    /// What people call it (host or pod name).
    pub name: Name,
    /// The key that signs its heads: Ed25519, base64url.
    pub public_key: String,
    /// Its software version.
    pub version: String,
}

/// The answer to [`Enroll`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// `prx_…`
    pub proxy_id: String,
    /// `oak_prox_…`
    pub proxy_key: Secret,
    /// The org it belongs to.
    pub org: Name,
    /// The audiences that it may serve.
    pub audiences: Vec<Name>,
    /// The tenants that it may serve; all when `None`.
    pub tenants: Option<Vec<Name>>,
    /// Pinned: bundles are accepted from this key only.
    pub bundle_key: PublicKey,
}

/// What a credential may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "tenants", rename_all = "snake_case", deny_unknown_fields)]
pub enum Tenancy {
    /// One tenant, implied.
    One(Name),
    /// A request picks one of these.
    Some(Vec<Name>),
    /// Any tenant of the org, or none.
    Org,
}

/// Why a tenant may not be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TenancyError {
    #[error("this credential does not reach the tenant that the request names")]
    Foreign,
    #[error("this credential reaches several tenants: name one with X-Tenant-Id")]
    Missing,
}

impl Tenancy {
    /// The tenant of a request that names `wanted`. It selects among what the credential has, and
    /// never adds to it.
    pub fn select<'a>(&'a self, wanted: Option<&'a Name>) -> Result<Option<&'a Name>, TenancyError> {
        match (self, wanted) {
            (Self::One(own), None) => Ok(Some(own)),
            (Self::One(own), Some(named)) if own == named => Ok(Some(own)),
            (Self::One(_), Some(_)) => Err(TenancyError::Foreign),
            (Self::Some(_), None) => Err(TenancyError::Missing),
            (Self::Some(own), Some(named)) => {
                own.iter().find(|t| *t == named).map(Some).ok_or(TenancyError::Foreign)
            }
            (Self::Org, wanted) => Ok(wanted),
        }
    }
}

/// What a proxy knows about a credential: never the key, only its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// SHA-256 of the key, hex.
    pub sha256: String,
    /// `key_…`
    pub key_id: String,
    /// The principal that calls under this key: its agent, else the key itself.
    pub principal: Name,
    /// What it may name.
    pub tenancy: Tenancy,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMs>,
}

/// A token key of an audience that the proxy serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudienceKey {
    /// The audience.
    pub audience: Name,
    /// `<epoch>.<audience>`
    pub kid: String,
    /// 32 bytes, base64url.
    pub key: Secret,
    /// Sign with this one; others only verify.
    pub current: bool,
}

/// `GET /v1/proxies/{id}/bundle`: the org's policy and what goes with it, signed ([`Signed`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The org.
    pub org: Name,
    /// Grows with every change of anything in the org; never goes back.
    pub version: u64,
    /// When it was signed.
    pub issued_at: UnixMs,
    /// Whose bundle it is: the whole, or one tenant's rules.
    pub scope: BundleScope,
}

/// The content of a [`Bundle`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BundleScope {
    /// Everything but the tenants' rules.
    Org {
        /// The policy.
        policy: OrgPolicy,
        /// Credentials that may call through this proxy.
        keys: Vec<KeyRecord>,
        /// Token keys of this proxy's audiences.
        audience_keys: Vec<AudienceKey>,
    },
    /// The rules of one tenant (`?tenant=`).
    Tenant {
        /// The tenant.
        tenant: Name,
        /// Its rules.
        rules: Vec<Rule>,
    },
}

/// "This version is still current", signed every 20 s: the age of a policy counts from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StillCurrent {
    /// The org.
    pub org: Name,
    /// The newest version.
    pub version: u64,
    /// When the backend said so.
    pub at: UnixMs,
}

/// One message of `GET /v1/proxies/{id}/events` (server-sent events; `event:` is the tag, `id:` the
/// place to resume from).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum FeedEvent {
    /// Something changed: fetch what is named.
    Version {
        /// The new version.
        version: u64,
        /// The tenant whose rules changed; `None`: the org's bundle.
        tenant: Option<Name>,
    },
    /// A [`StillCurrent`].
    Current(Signed),
    /// An approval changed its state.
    Approval(ApprovalState),
}

/// `POST /v1/proxies/{id}/audit`: events in order, with a signed head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditBatch {
    /// Consecutive events of the proxy's chain; may begin with ones that were sent before.
    pub events: Vec<Chained>,
    /// [`Head`] after the last of them, signed with the proxy's key under [`Purpose::Head`].
    pub head: Signed,
}

/// The answer to [`AuditBatch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditAck {
    /// Everything up to here is stored: the proxy may forget it.
    pub acknowledged_seq: u64,
}

/// `POST /v1/proxies/{id}/heartbeat`, every 20 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Software version.
    pub version: String,
    /// Policy version in force.
    pub policy_version: u64,
    /// Events not yet acknowledged.
    pub spool_depth: u64,
    /// Head of the chain.
    pub head: Head,
    /// Calls that wait for a person.
    pub held_calls: u64,
}

/// `POST /v1/proxies/{id}/definitions`: what tool servers say their tools are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenDefinitions {
    /// The tool server.
    pub audience: Name,
    /// Those that the proxy does not know as pinned.
    pub definitions: Vec<SeenDefinition>,
}

/// A tool's definition, as its tool server listed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenDefinition {
    /// The tool.
    pub name: Name,
    /// `oakallow_policy::pin::digest` of it, hex.
    pub sha256: String,
    /// All of it, as text: whatever a tool server wrote there, this can be read. Left out when it is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

/// An error answer (RFC 9457), the same from backend, proxy and edge worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`, or a page that explains it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short, the same for every occurrence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: String,
    /// What went wrong here, and what to do.
    pub detail: String,
    /// Further members.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";
