//! What becomes of calls: approvals, tokens, the audit log, and the page on which people decide.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod announced;
mod approvals;
mod audit;
mod consumption;
#[path = "../support/database.rs"]
mod database;
mod ended;
mod external;
mod nesting;
mod orgs;
mod page;
mod races;
mod redemptions;
mod secrets;
mod stack;
mod tokens;
