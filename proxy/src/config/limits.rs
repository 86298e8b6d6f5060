//! What a limit can be: a number that would overflow a clock, or let nothing through, is a slip.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Limits;
use crate::route::Route;

/// Whoever waits longer than a day does not wait.
const SECONDS: RangeInclusive<u64> = 1..=24 * 3600;
/// More than any machine has; far from what a counter or a semaphore can hold.
const COUNT: RangeInclusive<u64> = 0..=1 << 40;
const RELEASES: RangeInclusive<u64> = 1..=1_000_000;

pub(super) fn check(limits: &Limits) -> Result<(), String> {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let all = [
        ("body_bytes_max", count(limits.body_bytes_max), COUNT),
        ("header_bytes_max", count(limits.header_bytes_max), COUNT),
        ("head_read_timeout_s", limits.head_read_timeout_s, SECONDS),
        ("idle_timeout_s", limits.idle_timeout_s, SECONDS),
        ("body_read_timeout_s", limits.body_read_timeout_s, SECONDS),
        ("write_timeout_s", limits.write_timeout_s, SECONDS),
        ("spool_events_max", limits.spool_events_max, COUNT),
        ("spool_bytes_max", limits.spool_bytes_max, COUNT),
        ("connections_max", count(limits.connections_max), COUNT),
        ("releases_max", count(limits.releases_max), RELEASES),
    ];
    all.into_iter().try_for_each(|(key, value, range)| within(key, value, &range))
}

/// The times of a route.
pub(super) fn check_route(route: &Route) -> Result<(), String> {
    let of = |d: Duration| d.as_secs();
    let longest = *SECONDS.end();
    [
        ("budget_s", of(route.hold_budget)),
        ("comment_every_s", of(route.comment_every)),
        ("progress_every_s", of(route.progress_every)),
        ("connect_s", of(route.connect_timeout)),
        ("response_s", of(route.response_timeout)),
        ("idle_s", of(route.idle_timeout)),
    ]
    .into_iter()
    .try_for_each(|(key, value)| within(key, value, &(0..=longest)))
}

fn within(key: &str, value: u64, range: &RangeInclusive<u64>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("`{key}`: {value} is not between {} and {}", range.start(), range.end()))
}
