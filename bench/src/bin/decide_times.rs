//! Times decisions of all engines in turn, round by round, and prints the table of times and ratios.
//!
//! Criterion measures one engine after the other; on a shared machine the minutes between them differ.
//! Here a round asks every engine, so what disturbs one disturbs all, and the ratios hold. Build with
//! `--profile bench`; the engines besides ours need `--features peers`.

#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::hint::black_box;
use std::time::Instant;

use oakallow_bench::workload::{OwnedCall, Workload};

/// Enough that a million rules do not fit into the caches between two visits.
const COLD_CALLS: usize = 400_000;
const WARM_CALLS: usize = 64;

/// Decides every call of a list; how many it could decide.
type DecideAll<'a> = Box<dyn FnMut(&[OwnedCall]) -> usize + 'a>;

/// Something that decides, the calls it is asked, how many of them in a round, and what it took.
struct Contender<'a> {
    name: &'static str,
    decide: DecideAll<'a>,
    calls: &'a [OwnedCall],
    per_round: usize,
    /// Nanoseconds per decision, one a round.
    rounds: Vec<f64>,
}

/// Nanoseconds per decision.
struct Times {
    name: &'static str,
    median: f64,
    lowest: f64,
}

impl<'a> Contender<'a> {
    fn new<E>(
        name: &'static str,
        calls: &'a [OwnedCall],
        per_round: usize,
        mut decide: impl FnMut(&OwnedCall) -> Result<E, anyhow::Error> + 'a,
    ) -> Self {
        let decide = move |calls: &[OwnedCall]| calls.iter().filter(|c| black_box(decide(c)).is_ok()).count();
        Self { name, decide: Box::new(decide), calls, per_round, rounds: Vec::new() }
    }

    /// One round: the calls from where the last round stopped.
    fn round(&mut self) {
        let mut left = self.per_round;
        let start = Instant::now();
        let mut decided = 0;
        while left > 0 {
            let at = if self.per_round < self.calls.len() { self.rounds.len() * self.per_round } else { 0 };
            let from = at % self.calls.len();
            let part = self.calls.get(from..).unwrap_or(&[]);
            let part = part.get(..left).unwrap_or(part);
            decided += (self.decide)(part);
            left -= part.len();
        }
        let ns = start.elapsed().as_secs_f64() * 1e9;
        assert_eq!(decided, self.per_round, "{} did not decide all", self.name);
        self.rounds.push(ns / self.per_round as f64);
    }

    /// The median of the rounds, and the quickest: what is left when nothing else ran.
    fn times(&self) -> Times {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |n: usize| sorted.get(n).copied().unwrap_or(f64::NAN);
        Times { name: self.name, median: at(sorted.len() / 2), lowest: at(0) }
    }
}

fn measure(rules: usize, rounds: usize) -> anyhow::Result<Vec<Times>> {
    let workload = Workload::new(rules);
    let compiling = Instant::now();
    let set = workload.compile()?;
    let compiled = compiling.elapsed();
    println!(
        "{rules} rules: compiled in {compiled:.0?}, {:.1} bytes per rule",
        set.heap_bytes() as f64 / rules as f64
    );
    let (warm, cold) = (workload.calls(WARM_CALLS), workload.calls(COLD_CALLS));
    let mut contenders = Vec::new();
    for (name, calls) in [("oakallow warm", &warm), ("oakallow cold", &cold)] {
        contenders.push(Contender::new(name, calls, COLD_CALLS, |call| {
            Ok(set.resolve(&call.as_call()).map(|d| d.permission())?)
        }));
    }
    #[cfg(feature = "peers")]
    {
        let cedar = std::rc::Rc::new(oakallow_bench::peers::Cedar::new(&workload)?);
        let mut rego = oakallow_bench::peers::Rego::new(&workload)?;
        for call in cold.iter().take(2_000) {
            let ours = set.resolve(&call.as_call())?.permission();
            anyhow::ensure!(cedar.decide(call)? == ours && rego.decide(call)? == ours, "they differ");
        }
        for (name, calls) in [("Cedar warm", &warm), ("Cedar cold", &cold)] {
            let cedar = cedar.clone();
            contenders.push(Contender::new(name, calls, 20_000, move |call| cedar.decide(call)));
        }
        contenders.push(Contender::new("regorus cold", &cold, 10_000, move |call| rego.decide(call)));
    }
    // The first round warms up.
    for _ in 0..=rounds {
        contenders.iter_mut().for_each(Contender::round);
    }
    Ok(contenders
        .iter_mut()
        .map(|c| {
            c.rounds.remove(0);
            c.times()
        })
        .collect())
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(9), |n| n.parse())?;
    let mut sizes = arguments.map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
    if sizes.is_empty() {
        sizes.extend(oakallow_bench::workload::SIZES);
    }
    let columns = sizes.iter().map(|n| measure(*n, rounds)).collect::<Result<Vec<_>, _>>()?;
    table("median", &sizes, &columns, |times| times.median);
    table("lowest", &sizes, &columns, |times| times.lowest);
    Ok(())
}

fn table(of: &str, sizes: &[usize], columns: &[Vec<Times>], pick: fn(&Times) -> f64) {
    let row = |name: &str, cells: Vec<String>| println!("| {name} | {} |", cells.join(" | "));
    row(&format!("{of} ns"), sizes.iter().map(|n| format!("{n} rules")).collect());
    println!("|---|{}", "---:|".repeat(sizes.len()));
    let names: Vec<&str> = columns.first().map_or_else(Vec::new, |c| c.iter().map(|t| t.name).collect());
    let time = |column: &[Times], name: &str| column.iter().find(|t| t.name == name).map_or(f64::NAN, pick);
    for name in &names {
        row(name, columns.iter().map(|c| format!("{:.0}", time(c, name))).collect());
    }
    for name in names.iter().filter(|n| !n.starts_with("oakallow")) {
        let ours = if name.ends_with("warm") { "oakallow warm" } else { "oakallow cold" };
        let ratio = |c: &Vec<Times>| format!("{:.1}×", time(c, name) / time(c, ours));
        row(&format!("{name} ÷ {ours}"), columns.iter().map(ratio).collect());
    }
}
