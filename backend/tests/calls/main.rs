//! What becomes of calls: approvals, tokens, the audit log, and the page on which people decide.

mod approvals;
mod audit;
mod page;
mod races;
mod stack;
mod tokens;
