//! Reads what criterion measured and prints the table of ratios: one row an engine, one column a size.

#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::path::Path;

use oakallow_bench::workload::SIZES;

const ENGINES: [&str; 5] = ["oakallow_warm", "oakallow_cold", "cedar_warm", "cedar_cold", "regorus_cold"];

/// Median nanoseconds of one benchmark, if it ran.
fn median_ns(criterion: &Path, size: usize, engine: &str) -> Option<f64> {
    // Criterion writes a group's slash as an underscore.
    let file = criterion.join(format!("decide_{size}")).join(engine).join("new/estimates.json");
    let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    estimates.pointer("/median/point_estimate")?.as_f64()
}

fn row(name: &str, cells: impl Iterator<Item = Option<String>>) {
    let cells: Vec<String> = cells.map(|c| c.unwrap_or_else(|| "–".to_owned())).collect();
    println!("| {name} | {} |", cells.join(" | "));
}

fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "target/criterion".to_owned());
    let criterion = Path::new(&directory);
    row("median ns", SIZES.iter().map(|s| Some(format!("{s} rules"))));
    println!("|---|{}", "---:|".repeat(SIZES.len()));
    for engine in ENGINES {
        row(engine, SIZES.iter().map(|s| median_ns(criterion, *s, engine).map(|ns| format!("{ns:.0}"))));
    }
    for (ours, other) in
        [("oakallow_warm", "cedar_warm"), ("oakallow_cold", "cedar_cold"), ("oakallow_cold", "regorus_cold")]
    {
        let ratio = |s: &usize| Some(median_ns(criterion, *s, other)? / median_ns(criterion, *s, ours)?);
        row(&format!("{other} ÷ {ours}"), SIZES.iter().map(|s| ratio(s).map(|r| format!("{r:.0}×"))));
    }
}
