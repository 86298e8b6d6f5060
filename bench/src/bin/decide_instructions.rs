//! Decides a fixed list of calls once, for an instruction count under callgrind: the same figure on
//! any machine and under any load, so it can gate. See `bench/instructions.sh`.

#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::hint::black_box;

use oakallow_bench::workload::{OwnedCall, Workload};
use oakallow_policy::RuleSet;

/// The part that is counted: callgrind collects only inside it.
#[inline(never)]
fn measured_decisions(set: &RuleSet, calls: &[OwnedCall]) -> usize {
    calls.iter().filter(|call| black_box(set.resolve(&call.as_call())).is_ok()).count()
}

fn main() -> anyhow::Result<()> {
    let rules = std::env::args().nth(1).map_or(Ok(1_000), |n| n.parse())?;
    let workload = Workload::new(rules);
    let set = workload.compile()?;
    let calls = workload.calls(1_000);
    println!("{rules} rules, {} calls decided", measured_decisions(&set, &calls));
    Ok(())
}
