//! Whatever crashes, is lost, comes late or comes twice: nothing is forwarded without a decision and a stored
//! intent, and an approval runs at most one call. Checked over every interleaving, with the very functions
//! that proxy and backend take their steps by; and each property is shown to fail when one of them is wrong.

#![expect(clippy::indexing_slicing, reason = "a model's indices are its own")]
#![expect(clippy::print_stdout, reason = "how much was explored")]

mod model;
mod mutants;

use model::{System, Transitions};
use stateright::{Checker as _, Model as _};

/// Explores everything and prints a counterexample should there be one.
fn check(system: System) {
    let checker = system.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

fn system(on: &[usize], crashes_max: &[u8]) -> System {
    System { on: on.to_vec(), crashes_max: crashes_max.to_vec(), transitions: Transitions::default() }
}

#[test]
fn a_call_and_its_retry_at_one_proxy() {
    check(system(&[0, 0], &[1]));
}

#[test]
fn a_call_and_its_retry_at_another_proxy() {
    check(system(&[0, 1], &[1, 0]));
}

/// Minutes; part of `./check long`.
#[test]
#[ignore = "explores for minutes"]
fn two_calls_at_two_proxies_that_crash_and_crash_again() {
    check(system(&[0, 1], &[2, 2]));
}

/// The same.
#[test]
#[ignore = "explores for minutes"]
fn three_calls_at_one_proxy() {
    check(system(&[0, 0, 0], &[1]));
}
