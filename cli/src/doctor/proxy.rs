//! Whether the proxy can be reached, takes calls, and is as fresh and empty as it should be.

use super::{Finding, Verdict, cause};

/// One of the proxy's metrics: above which values it is worth a warning, and above which it has failed.
struct Limit {
    metric: &'static str,
    check: &'static str,
    warn: f64,
    fail: f64,
    what: &'static str,
}

/// The first two limits are those of docs/guide/metrics.md; calls of high risk end at 300 s.
const LIMITS: [Limit; 4] = [
    Limit {
        metric: "oakallow_policy_age_seconds",
        check: "policy",
        warn: 120.0,
        fail: 300.0,
        what: "seconds since the backend last confirmed the policy",
    },
    Limit {
        metric: "oakallow_spool_oldest_age_seconds",
        check: "spool",
        warn: 300.0,
        fail: 3_600.0,
        what: "seconds since the oldest event that the backend does not have",
    },
    Limit {
        metric: "oakallow_spool_failing",
        check: "spool",
        warn: 0.0,
        fail: 0.0,
        what: "writes of events that failed (0 or 1)",
    },
    Limit {
        metric: "oakallow_audit_chain_refused",
        check: "audit",
        warn: 0.0,
        fail: 0.0,
        what: "the backend refuses this proxy's chain of events (0 or 1)",
    },
];

/// Whether the agent's way to the proxy is open.
pub(super) async fn reached(http: &reqwest::Client, url: &str) -> Vec<Finding> {
    match http.get(url).send().await {
        Ok(answer) => {
            let detail = format!("it can be reached from here (status {})", answer.status().as_u16());
            let mut findings = vec![Finding::new("proxy", url, Verdict::Ok, detail)];
            findings.extend(super::backend::certificate(&answer, url));
            findings
        }
        Err(e) => {
            vec![Finding::new(
                "proxy",
                url,
                Verdict::Fail,
                format!("it cannot be reached from here: {}", cause(&e)),
            )]
        }
    }
}

/// What the proxy says of itself.
pub(super) async fn health(http: &reqwest::Client, ops: &str) -> Vec<Finding> {
    let get = async |path: &str| {
        let answer = http.get(format!("{ops}{path}")).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.text().await?))
    };
    let ready = match get("/readyz").await {
        Ok((status, _)) if status.is_success() => {
            Finding::new("ready", ops, Verdict::Ok, "the proxy takes calls")
        }
        Ok((_, why)) => {
            Finding::new("ready", ops, Verdict::Fail, format!("the proxy takes no calls: {}", why.trim()))
        }
        Err(e) => {
            return vec![Finding::new("ready", ops, Verdict::Fail, format!("no answer: {}", cause(&e)))];
        }
    };
    let mut findings = vec![ready];
    match get("/metrics").await {
        Ok((_, text)) => findings.extend(LIMITS.iter().map(|limit| held_against(limit, &text, ops))),
        Err(e) => findings.push(Finding::new("metrics", ops, Verdict::Fail, cause(&e))),
    }
    findings
}

fn held_against(limit: &Limit, metrics: &str, ops: &str) -> Finding {
    let line = metrics.lines().find_map(|line| line.strip_prefix(limit.metric)?.strip_prefix(' '));
    let Some(value) = line.and_then(|value| value.trim().parse::<f64>().ok()) else {
        return Finding::new(
            limit.check,
            ops,
            Verdict::Fail,
            format!("there is no metric {}: is this the proxy?", limit.metric),
        );
    };
    let verdict = match value {
        value if value > limit.fail => Verdict::Fail,
        value if value > limit.warn => Verdict::Warn,
        _ => Verdict::Ok,
    };
    Finding::new(limit.check, ops, verdict, format!("{value} {}", limit.what))
}

#[cfg(test)]
mod tests {
    use super::{LIMITS, Verdict, held_against};

    #[test]
    fn metrics_are_held_against_their_limits() {
        let verdict = |value: &str| {
            let text = format!("# HELP x\noakallow_policy_age_seconds{value}\n");
            held_against(&LIMITS[0], &text, "").verdict
        };
        assert_eq!(verdict(" 3"), Verdict::Ok);
        assert_eq!(verdict(" 121"), Verdict::Warn);
        assert_eq!(verdict(" 301"), Verdict::Fail);
        assert_eq!(verdict("_bucket 3"), Verdict::Fail);
        assert_eq!(verdict(" NaN-ish"), Verdict::Fail);
    }
}
