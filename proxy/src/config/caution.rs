//! What is accepted and deserves a second look: what a configuration leaves open, and what another one loosens.
//!
//! Out of scope: what is refused, which the other modules say.

use super::{Address, Config, Limits, Redact, Staleness};
use crate::route::Route;

impl Config {
    /// What it leaves open, each in a sentence that names the place.
    #[must_use]
    pub fn cautions(&self) -> Vec<String> {
        let clear = self.listen.data.iter().filter(|listener| listener.tls.is_none());
        let reached = clear.filter_map(|listener| match &listener.address {
            Address::Tcp(at) => (!at.ip().to_canonical().is_loopback()).then_some(at),
            Address::Unix { .. } => None,
        });
        let say = |at| {
            format!(
                "`{at}` can be reached from elsewhere without TLS: whoever is on the way reads the keys and tokens of \
                 callers; give it `tls`, or keep it on loopback behind something that has TLS"
            )
        };
        reached.map(say).collect()
    }

    /// What of its bounds, and of what it hides, `next` loosens.
    #[must_use]
    pub fn loosened_by(&self, next: &Self) -> Vec<String> {
        let numbers = |config: &Self| limits(&config.limits).into_iter().chain(ages(&config.staleness));
        let grown = numbers(self).zip(numbers(next)).filter(|((_, before), (_, now))| now > before);
        let grown = grown.map(|((key, before), (_, now))| format!("`{key}` is {now} and was {before}"));
        let shown = uncovered(&self.redact, &next.redact);
        let known = |route: &Route| self.routes.iter().find(|before| before.name == route.name);
        let opened =
            next.routes.iter().filter(|route| known(route).is_some_and(|before| opens(before, route)));
        let opened =
            opened.map(|route| format!("the route `{}` takes tokens for more audiences", route.name));
        grown.chain(shown).chain(opened).collect()
    }
}

/// No field is left out by mistake: each is named here. More of each is looser.
fn limits(limits: &Limits) -> [(&'static str, u64); 17] {
    let Limits {
        body_bytes_max,
        header_bytes_max,
        head_read_timeout_s,
        idle_timeout_s,
        body_read_timeout_s,
        write_timeout_s,
        holds_max,
        holds_per_principal_max,
        hold_bytes_max,
        hold_bytes_per_principal_max,
        bodies_bytes_max,
        bodies_bytes_per_principal_max,
        spool_events_max,
        spool_bytes_max,
        connections_max,
        streams_per_connection_max,
        releases_max,
    } = limits;
    let count = |n: &usize| u64::try_from(*n).unwrap_or(u64::MAX);
    [
        ("limits.body_bytes_max", count(body_bytes_max)),
        ("limits.header_bytes_max", count(header_bytes_max)),
        ("limits.head_read_timeout_s", *head_read_timeout_s),
        ("limits.idle_timeout_s", *idle_timeout_s),
        ("limits.body_read_timeout_s", *body_read_timeout_s),
        ("limits.write_timeout_s", *write_timeout_s),
        ("limits.holds_max", count(holds_max)),
        ("limits.holds_per_principal_max", count(holds_per_principal_max)),
        ("limits.hold_bytes_max", count(hold_bytes_max)),
        ("limits.hold_bytes_per_principal_max", count(hold_bytes_per_principal_max)),
        ("limits.bodies_bytes_max", count(bodies_bytes_max)),
        ("limits.bodies_bytes_per_principal_max", count(bodies_bytes_per_principal_max)),
        ("limits.spool_events_max", *spool_events_max),
        ("limits.spool_bytes_max", *spool_bytes_max),
        ("limits.connections_max", count(connections_max)),
        ("limits.streams_per_connection_max", count(streams_per_connection_max)),
        ("limits.releases_max", count(releases_max)),
    ]
}

/// How old a policy may be: older is looser.
fn ages(staleness: &Staleness) -> [(&'static str, u64); 5] {
    let Staleness { low_s, medium_s, high_s, critical_s, revocations_s } = *staleness;
    [
        ("staleness.low_s", low_s),
        ("staleness.medium_s", medium_s),
        ("staleness.high_s", high_s),
        ("staleness.critical_s", critical_s),
        ("staleness.revocations_s", revocations_s),
    ]
}

/// What was hidden and is not any more. The names are those of members, not what is in them.
fn uncovered(before: &Redact, now: &Redact) -> impl Iterator<Item = String> {
    let Redact { keys, pointers } = before;
    let keys = keys.iter().filter(|key| !now.keys.iter().any(|kept| kept.eq_ignore_ascii_case(key)));
    let pointers = pointers.iter().filter(|pointer| !now.pointers.contains(pointer));
    let keys = keys.map(|key| format!("`redact.keys` has `{key}` no more"));
    let pointers = pointers.map(|pointer| format!("`redact.pointers` has `{pointer}` no more"));
    keys.chain(pointers).collect::<Vec<_>>().into_iter()
}

fn opens(before: &Route, now: &Route) -> bool {
    match (&before.token_audiences, &now.token_audiences) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before), Some(now)) => now.iter().any(|audience| !before.contains(audience)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, more: &str) -> Config {
        let text = format!(
            "listen: {{data: {listen}}}
state_dir: /none
backend: {{url: \"http://127.0.0.1:1\"}}
routes: [{{name: mcp, kind: mcp, path: /mcp, audience: tools, upstream: \"http://127.0.0.1:2\"}}]
{more}
"
        );
        Config::parse("test.yaml", &text).unwrap()
    }

    #[test]
    fn a_listener_in_the_clear_that_others_reach_is_told() {
        let tls = "[{address: \"0.0.0.0:1\", tls: {certificate: /c, key: /k}}]";
        for quiet in ["\"127.0.0.1:1\"", "\"[::1]:1\"", "\"[::ffff:127.0.0.1]:1\"", "\"unix:/s\"", tls] {
            assert!(config(quiet, "").cautions().is_empty(), "{quiet}");
        }
        for told in ["0.0.0.0:1", "[::]:1", "192.0.2.7:1"] {
            let cautions =
                config(&format!("[{{address: \"{told}\"}}, {{address: \"127.0.0.1:1\"}}]"), "").cautions();
            assert!(
                matches!(&cautions[..], [one] if one.contains(told) && one.contains("TLS")),
                "{cautions:?}"
            );
        }
    }

    #[test]
    fn what_is_looser_is_told_and_nothing_else() {
        let config = |more: &str| config("\"127.0.0.1:1\"", more);
        let first = config(
            "limits: {holds_max: 5, write_timeout_s: 9}\nredact: {keys: [iban, Plan], pointers: [/a, /b]}",
        );
        let stricter = config(
            "limits: {holds_max: 4, write_timeout_s: 8}\nstaleness: {low_s: 5}\nredact: {keys: [plan, iban, x], pointers: [/b, /a]}",
        );
        assert!(first.loosened_by(&first).is_empty());
        assert!(first.loosened_by(&stricter).is_empty());
        assert_eq!(
            stricter.loosened_by(&first),
            [
                "`limits.write_timeout_s` is 9 and was 8",
                "`limits.holds_max` is 5 and was 4",
                "`staleness.low_s` is 86400 and was 5",
                "`redact.keys` has `x` no more",
            ]
        );
        let bare =
            config("limits: {holds_max: 5, write_timeout_s: 9}\nredact: {keys: [plan], pointers: [/b]}");
        let told = ["`redact.keys` has `iban` no more", "`redact.pointers` has `/a` no more"];
        assert_eq!(first.loosened_by(&bare), told);
    }
}
