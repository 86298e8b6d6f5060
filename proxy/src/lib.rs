//! The sidecar: sees every tool call, decides, holds, signs, forwards, records.
//!
//! ```text
//! agent → serve (strict head, route, credential, whole body)
//!       → call::{http, mcp} (which tool, resource, method)
//!       → enforce (rules → schema → [hold] → intent → token)
//!       → forward (only with a permit) → outcome → spool → ship → backend
//! ```
//! Around an MCP server that speaks over standard input and output, `mcp::stdio` stands in the place of `serve`.
//!
//! In scope: the path of a call, and what it needs of the backend. Out of scope: rules (`oakallow-policy`),
//! approvals as people see them, storage of the audit log (`oakallow-backend`).

pub mod app;
pub mod approval;
pub mod backend;
pub mod base;
pub mod bodies;
pub mod call;
mod causes;
pub mod client;
pub mod clock;
pub mod config;
pub mod connection;
pub mod enforce;
pub mod event;
pub mod feed;
pub mod fields;
pub mod forward;
pub mod hangup;
pub mod head;
pub mod identity;
pub mod listen;
pub mod live;
pub mod logs;
pub mod mcp;
pub mod media;
pub mod metrics;
pub mod observe;
pub mod ops;
pub mod outcome;
pub mod pem;
pub mod phases;
pub mod policy;
pub mod progress;
pub mod redact;
pub mod refusal;
pub mod reload;
pub mod route;
pub mod run;
pub mod schema;
pub mod seldom;
pub mod serve;
pub mod ship;
pub mod spool;
pub mod sse;
pub mod stream;
pub mod unidentified;
pub mod watch;

pub use base::StartError;
pub use run::{Running, start};
