//! The decision, and nothing else: whether a tool call may run, and the values that prove it.
//!
//! In scope: the rule model, 12-level resolution, the compiled rule set, permits, execution tokens,
//! canonical bytes and fingerprints, audit events, their chain and the Merkle log over them, and the types that travel between
//! proxy, backend and edge worker.
//!
//! Out of scope: I/O, clocks, randomness, HTTP. Time (`unix_ms`) and random bytes are parameters, so
//! the same code gives the same answer in a proxy, in the backend and in a wasm worker.
//!
//! Reading order: [`call`] → [`rule`], [`tool`] → [`ruleset`] → [`resolve`] → [`permit`] → [`token`],
//! [`audit`], [`merkle`]; [`life`] and [`approval`] say what may follow on what; [`document`] is the YAML form, [`wire`]
//! the JSON form.

pub mod annotation;
pub mod approval;
pub mod audit;
pub mod call;
pub mod canonical;
pub mod document;
pub mod fingerprint;
pub mod id;
mod index;
pub mod level;
pub mod life;
pub mod merkle;
pub mod permit;
pub mod pin;
pub mod principal;
pub mod resolve;
pub mod rule;
pub mod ruleset;
pub mod secret;
pub mod strict_json;
pub mod timestamp;
pub mod token;
pub mod tool;
pub mod wire;

pub use call::Call;
pub use id::Name;
pub use level::{Level, ResolvedFrom};
pub use permit::{Permit, PermitReason};
pub use resolve::{Decision, ResolveError};
pub use rule::{Permission, Rule};
pub use ruleset::RuleSet;
pub use tool::{Category, RiskLevel, Tool};
