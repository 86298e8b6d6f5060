//! What a limit can be: a number that would overflow a clock, or let nothing through, is a slip.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Limits;
use crate::route::Route;

/// Whoever waits longer than a day does not wait.
const SECONDS: RangeInclusive<u64> = 1..=24 * 3600;
/// More than any machine has; far from what a counter or a semaphore can hold.
const COUNT: RangeInclusive<u64> = 0..=1 << 40;
/// What a connection that is shared by many agents may need, and memory for as many is there.
const STREAMS: RangeInclusive<u64> = 1..=100_000;
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
        ("bodies_bytes_max", count(limits.bodies_bytes_max), COUNT),
        ("bodies_bytes_per_principal_max", count(limits.bodies_bytes_per_principal_max), COUNT),
        ("spool_events_max", limits.spool_events_max, COUNT),
        ("spool_bytes_max", limits.spool_bytes_max, COUNT),
        ("connections_max", count(limits.connections_max), COUNT),
        ("streams_per_connection_max", count(limits.streams_per_connection_max), STREAMS),
        ("releases_max", count(limits.releases_max), RELEASES),
    ];
    all.into_iter().try_for_each(|(key, value, range)| within(key, value, &range))
}

/// The times of a route.
pub(super) fn check_route(route: &Route) -> Result<(), String> {
    let of = |d: Duration| d.as_secs();
    // Who waits for nobody is answered at once.
    within("budget_s", of(route.hold_budget), &(0..=*SECONDS.end()))?;
    [
        ("comment_every_s", of(route.comment_every)),
        ("progress_every_s", of(route.progress_every)),
        ("connect_s", of(route.connect_timeout)),
        ("response_s", of(route.response_timeout)),
        ("idle_s", of(route.idle_timeout)),
    ]
    .into_iter()
    .try_for_each(|(key, value)| within(key, value, &SECONDS))
}

fn within(key: &str, value: u64, range: &RangeInclusive<u64>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("`{key}`: {value} is not between {} and {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(limits: &str, routes: &str) -> Result<Config, String> {
        let text = format!(
            "state_dir: /tmp/none\nbackend: {{url: \"http://127.0.0.1:1\"}}\nlimits: {limits}\nroutes: [{routes}]\n"
        );
        Config::parse("test.yaml", &text).map_err(|e| e.to_string())
    }

    fn route(name: &str, more: &str) -> String {
        format!(
            "{{name: {name}, kind: http, path: \"/{name}/{{tool}}\", audience: tools, upstream: \"http://127.0.0.1:2\"{more}}}"
        )
    }

    #[test]
    fn what_would_overflow_a_clock_or_let_nothing_through_is_refused() {
        assert!(read("{}", &route("a", "")).is_ok());
        for (key, value) in [
            ("head_read_timeout_s", u64::MAX),
            ("idle_timeout_s", u64::MAX),
            ("write_timeout_s", 0),
            ("body_read_timeout_s", 86_401),
            ("streams_per_connection_max", 0),
            ("streams_per_connection_max", 100_001),
            ("releases_max", 0),
            ("releases_max", u64::MAX),
            ("connections_max", u64::MAX),
        ] {
            let refused = read(&format!("{{{key}: {value}}}"), &route("a", "")).unwrap_err();
            assert!(refused.contains(key) && refused.contains("test.yaml:3:"), "{refused}");
        }
        for (key, within) in [("connect_s", "timeouts"), ("idle_s", "timeouts"), ("progress_every_s", "hold")]
        {
            let refused = read("{}", &route("a", &format!(", {within}: {{{key}: 0}}"))).unwrap_err();
            assert!(refused.contains(key) && refused.contains("between 1 and"), "{refused}");
        }
        assert!(read("{}", &route("a", ", hold: {budget_s: 0}")).is_ok());
        let refused = read("{}", &route("a", ", hold: {budget_s: 18446744073709551615}")).unwrap_err();
        assert!(refused.contains("budget_s"), "{refused}");
    }

    #[test]
    fn a_route_that_never_matches_is_refused() {
        let other = route("b", "").replace("/b/{tool}", "/a/{tool}");
        let refused = read("{}", &format!("{}, {other}", route("a", ""))).unwrap_err();
        assert!(refused.contains("`b`") && refused.contains("`a`"), "{refused}");
    }

    #[test]
    fn two_routes_do_not_have_one_name() {
        let two = |other: &str| format!("{}, {}", route("a", ""), route(other, ""));
        assert!(read("{}", &two("b")).is_ok());
        assert!(read("{}", &two("a")).unwrap_err().contains("`a` is the name of two routes"));
    }
}
