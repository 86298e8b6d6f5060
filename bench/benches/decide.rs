//! Deciding one call: ours beside Cedar and Rego (feature `peers`), on the same rules and calls.
//!
//! `warm` asks the same 64 calls again and again; `cold` walks over so many different calls that the
//! rules it needs are rarely in the processor's caches. Before anything is timed, all engines must
//! give the same answers.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a command-line tool over its own data")]
#![expect(clippy::expect_used, reason = "a benchmark may stop at the first fault")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use oakallow_bench::workload::{OwnedCall, SIZES, Workload};

/// Enough that a million rules do not fit into the caches between two visits.
const COLD_CALLS: usize = 400_000;
const WARM_CALLS: usize = 64;

fn cycle<'a>(calls: &'a [OwnedCall]) -> impl FnMut() -> &'a OwnedCall {
    let mut at = 0;
    move || {
        at = if at + 1 == calls.len() { 0 } else { at + 1 };
        &calls[at]
    }
}

fn decide(c: &mut Criterion) {
    for size in SIZES {
        let workload = Workload::new(size);
        let set = workload.compile().expect("compiles");
        println!("{size} rules: {:.1} bytes per rule", set.heap_bytes() as f64 / size as f64);
        let (warm, cold) = (workload.calls(WARM_CALLS), workload.calls(COLD_CALLS));
        let mut group = c.benchmark_group(format!("decide/{size}"));
        for (name, calls) in [("oakallow_warm", &warm), ("oakallow_cold", &cold)] {
            let mut next = cycle(calls);
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| black_box(set.resolve(&next().as_call())).is_ok());
            });
        }
        #[cfg(feature = "peers")]
        peers(&mut group, &workload, &set, &warm, &cold);
        group.finish();
    }
}

#[cfg(feature = "peers")]
fn peers(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    workload: &Workload,
    set: &oakallow_policy::RuleSet,
    warm: &[OwnedCall],
    cold: &[OwnedCall],
) {
    let cedar = oakallow_bench::peers::Cedar::new(workload).expect("builds");
    let mut rego = oakallow_bench::peers::Rego::new(workload).expect("builds");
    for call in cold.iter().take(2_000) {
        let ours = set.resolve(&call.as_call()).expect("decides").permission;
        assert_eq!(cedar.decide(call).expect("decides"), ours);
        assert_eq!(rego.decide(call).expect("decides"), ours);
    }
    for (name, calls) in [("cedar_warm", warm), ("cedar_cold", cold)] {
        let mut next = cycle(calls);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| black_box(cedar.decide(next())).is_ok());
        });
    }
    let mut next = cycle(cold);
    group.bench_function(BenchmarkId::from_parameter("regorus_cold"), |b| {
        b.iter(|| black_box(rego.decide(next())).is_ok());
    });
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for size in [100_000, 1_000_000] {
        let workload = Workload::new(size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| black_box(workload.compile())));
        let set = workload.compile().expect("compiles");
        let (tenant, rules) = &workload.tenants[0];
        group.bench_function(BenchmarkId::new("one_tenant", size), |b| {
            b.iter(|| black_box(set.with_tenant(tenant, rules, 2)));
        });
    }
    group.finish();
}

criterion_group!(benches, decide, compile);
criterion_main!(benches);
