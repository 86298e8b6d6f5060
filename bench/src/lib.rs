//! The workload that all decision benchmarks share: a policy of any size and calls against it.
//!
//! Everything is made from a fixed seed, so two runs, and two engines in one run, see the same rules
//! and the same calls.

pub mod workload;

#[cfg(feature = "peers")]
pub mod peers;
