//! Calls that are one HTTP request: the path names the tool, a JSON object is its arguments.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use oakallow_policy::call::CallNames;
use oakallow_policy::canonical::hex;
use oakallow_policy::id::Name;
use serde_json::{Map, json};

use crate::call::beside;
use crate::call::strict::{self, check_members};
use crate::call::{IdentifiedCall, digest, pointed, without_secrets};
use crate::identity::Caller;
use crate::policy::Snapshot;
use crate::refusal::Refusal;
use crate::route::Route;

/// No client holds a connection longer than this by asking for it.
const WAIT_MAX_S: u64 = 3_600;

/// Reads the call out of a request. The bytes of the body are what is forwarded; this is their one parse.
pub fn identify(
    (route, txn): (&Arc<Route>, &str),
    parts: &Parts,
    body: &[u8],
    caller: &Caller,
    snapshot: &Snapshot,
) -> Result<IdentifiedCall, Refusal> {
    let bad = |e: &dyn std::fmt::Display| Refusal::InvalidRequest(e.to_string());
    let matched = route.pattern.matches(parts.uri.path()).ok_or(Refusal::UnknownRoute)?;
    let tool = Name::exact(matched.tool.ok_or(Refusal::UnknownRoute)?).map_err(|e| bad(&e))?;
    let parameters = if body.is_empty() { json!({}) } else { strict::parse(body).map_err(|e| bad(&e))? };
    if !parameters.is_object() {
        return Err(Refusal::InvalidRequest("the body is a JSON object: the tool's arguments".to_owned()));
    }
    let pointers = (route.resources.get(&tool), route.method_pointers.get(&tool));
    let known: Vec<&String> = [pointers.0, pointers.1].into_iter().flatten().collect();
    check_members(&parameters, snapshot.rules.tool(&tool, &route.audience), &known)?;
    let names = CallNames {
        org: snapshot.rules.org().clone(),
        tenant: caller.tenant.clone(),
        principal: caller.principal.clone(),
        audience: route.audience.clone(),
        resource: pointed(&parameters, pointers.0)?,
        method: pointed(&parameters, pointers.1)?,
        tool,
    };
    let mut beside = Map::new();
    beside::put(&mut beside, "headers", beside::headers(&parts.headers, route.kind));
    let arguments_sha256 = digest(&parameters)?;
    let args = json!({
        "method": parts.method.as_str(), "path": parts.uri.path(), "arguments_sha256": hex(&arguments_sha256),
    });
    Ok(IdentifiedCall {
        txn: txn.to_owned(),
        caller: caller.clone(),
        names: without_secrets(names)?,
        args: beside::covered(args, &beside),
        arguments_sha256,
        beside,
        idempotency_key: idempotency_key(parts)?,
        wait: wait(parts, route.hold_budget),
        bytes: body.len(),
        parameters,
        route: route.clone(),
    })
}

/// `Idempotency-Key`, if it is there: once, printable, short.
fn idempotency_key(parts: &Parts) -> Result<Option<String>, Refusal> {
    let mut found = parts.headers.get_all("idempotency-key").iter();
    let Some(key) = found.next() else { return Ok(None) };
    match key.to_str() {
        Ok(key) if found.next().is_none() && (1..=255).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            Err(Refusal::InvalidRequest("Idempotency-Key stands once and has 1 to 255 characters".to_owned()))
        }
    }
}

/// The wait that `Prefer` asks for (RFC 7240): `respond-async` none, `wait=N` that many seconds.
fn wait(parts: &Parts, budget: Duration) -> Duration {
    let mut wait = budget;
    let values = parts.headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok());
    for preference in values.flat_map(|v| v.split([',', ';'])).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            return Duration::ZERO;
        }
        let seconds = preference.strip_prefix("wait=").and_then(|n| n.trim_matches('"').parse::<u64>().ok());
        if let Some(seconds) = seconds {
            wait = Duration::from_secs(seconds.min(WAIT_MAX_S));
        }
    }
    wait
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(prefer: &str) -> Parts {
        http::Request::builder().uri("/tools/x").header("prefer", prefer).body(()).unwrap().into_parts().0
    }

    #[test]
    fn prefer_sets_the_wait() {
        let budget = Duration::from_secs(50);
        assert_eq!(wait(&parts("respond-async"), budget), Duration::ZERO);
        assert_eq!(wait(&parts("wait=3"), budget), Duration::from_secs(3));
        assert_eq!(wait(&parts("handling=lenient, wait=7"), budget), Duration::from_secs(7));
        assert_eq!(wait(&parts("wait=99999999"), budget), Duration::from_secs(WAIT_MAX_S));
        assert_eq!(wait(&parts("wait=x"), budget), budget);
    }
}
