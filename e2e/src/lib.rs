//! The harness of the end-to-end tests: it starts the real `oakallow` binary as other people do, drives it
//! with real clients, and reads what happened from the outside.
//!
//! In: processes ([`process`], [`stack`], [`apart`], [`proxy`], [`stdio`]), an agent ([`agent`]), many of them
//! ([`load`]), the people and scripts on the
//! other side ([`control`]), a tool server that remembers what reached it ([`upstream`]), an authorization server ([`oauth`]), clients in other
//! languages ([`clients`]), the MCP project's conformance suite ([`conformance`]), and the audit log as an auditor reads it ([`record`]). Out: anything that
//! depends on how the product works inside; only `oakallow-policy` is shared, for names and chain checks.
//!
//! A failed expectation ends the test: the harness panics, and says what it waited for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code: a failed expectation is the result"
)]

pub mod agent;
pub mod apart;
pub mod clients;
pub mod conformance;
pub mod control;
pub mod load;
pub mod oauth;
pub mod process;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod readme;
pub mod record;
pub mod stack;
pub mod stdio;
pub mod upstream;
pub mod wait;
