//! The sidecar between a scripted backend and a tool server that remembers what reached it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured"
)]

mod access;
mod admin;
mod bodies;
mod bundles;
mod claims;
mod clocks;
mod consume;
mod detours;
mod differentials;
mod discovery;
mod disk;
mod drain;
mod eras;
mod faults;
mod floods;
mod frames;
mod framing;
mod hangup;
mod legs;
mod limits;
mod listeners;
mod lists;
mod lost;
mod metrics;
mod names;
mod open_streams;
mod outage;
mod packed;
mod panics;
mod power;
mod record;
mod refused_tokens;
mod release;
mod reload;
mod revoked;
mod scale;
mod secrets;
mod sessions;
mod spool;
mod streams;
mod support;
mod tokens;
mod traces;
mod unreached;
mod upgrades;
mod upstreams;
mod upstreams_broken;
mod upstreams_bursts;
