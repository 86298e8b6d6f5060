//! What is seen of requests from outside, as it is written.

use std::path::PathBuf;

use http::Uri;
use opentelemetry_sdk::trace::Sampler;
use serde::Deserialize;

use crate::observe::access::To;

/// Where OTLP's HTTP is served below a collector's base URL.
const TRACES_PATH: &str = "/v1/traces";
/// Names the service unless somebody else does.
const SERVICE: &str = "oakallow-proxy";

/// How spans are exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Where to; `None`: the environment says.
    pub endpoint: Option<String>,
    /// How many of the traces that begin here are kept, from 0 to 1.
    pub sample_ratio: f64,
    /// Whether a trace that began elsewhere is kept as was decided there.
    pub parent_based: bool,
    /// Names the service; `None`: the environment does.
    pub service_name: Option<String>,
}

impl Tracing {
    /// What decides which requests have spans.
    #[must_use]
    pub fn sampler(&self) -> Sampler {
        let ratio = Sampler::TraceIdRatioBased(self.sample_ratio);
        if self.parent_based { Sampler::ParentBased(Box::new(ratio)) } else { ratio }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAccessLog {
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTracing {
    #[serde(default)]
    otlp_endpoint: Option<String>,
    #[serde(default)]
    sample_ratio: Option<f64>,
    #[serde(default)]
    service_name: Option<String>,
}

/// Where the access log goes. Over standard input and output, the output is the client's.
pub(super) fn access_log(w: Option<WrittenAccessLog>, stdio: bool) -> Result<Option<To>, String> {
    let Some(WrittenAccessLog { to }) = w else { return Ok(None) };
    match to.as_str() {
        "stdout" if stdio => {
            Err("`stdout` is how a `stdio` route talks to its client: send the access log elsewhere"
                .to_owned())
        }
        "stdout" => Ok(Some(To::Stdout)),
        "stderr" => Ok(Some(To::Stderr)),
        path if path.starts_with('/') => Ok(Some(To::File(PathBuf::from(path)))),
        other => Err(format!("`{other}`: the access log goes to stdout, stderr or an absolute path")),
    }
}

/// How spans are exported; `None`: not at all. The file wins over the environment, whose variables are those that all
/// of OpenTelemetry's SDKs read; `env` reads them.
pub(super) fn tracing(
    w: Option<WrittenTracing>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<Tracing>, String> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let exported = endpoints.into_iter().any(|name| env(name).is_some());
    let off = env("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
        || env("OTEL_TRACES_EXPORTER").is_some_and(|v| v != "otlp");
    if off || (w.is_none() && !exported) {
        return Ok(None);
    }
    let w = w.unwrap_or(WrittenTracing { otlp_endpoint: None, sample_ratio: None, service_name: None });
    if w.otlp_endpoint.is_none() && !exported {
        return Err("`tracing` has no `otlp_endpoint`, and the environment names none".to_owned());
    }
    let (parent_based, of_env) = sampler(env)?;
    let sample_ratio = w.sample_ratio.unwrap_or(of_env);
    if !(0.0..=1.0).contains(&sample_ratio) {
        return Err(format!("`sample_ratio`: {sample_ratio} is not between 0 and 1"));
    }
    let named = env("OTEL_SERVICE_NAME").is_some()
        || env("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|v| v.contains("service.name="));
    let service_name = w.service_name.or_else(|| (!named).then(|| SERVICE.to_owned()));
    Ok(Some(Tracing {
        endpoint: w.otlp_endpoint.map(endpoint).transpose()?,
        sample_ratio,
        parent_based,
        service_name,
    }))
}

/// The URL of a collector; where only a host is named, OTLP's own path.
fn endpoint(written: String) -> Result<String, String> {
    let url: Uri = written.parse().map_err(|_| "`otlp_endpoint` is not a URL".to_owned())?;
    if url.scheme_str().is_none_or(|s| s != "http" && s != "https") || url.host().is_none() {
        return Err("`otlp_endpoint`: a collector's URL starts with http:// or https://".to_owned());
    }
    if !super::url::has_fair_port(&url) {
        return Err("`otlp_endpoint`: a port is 1 to 65535".to_owned());
    }
    let whole = url.path() != "/";
    Ok(if whole { written } else { format!("{}{TRACES_PATH}", written.trim_end_matches('/')) })
}

/// `OTEL_TRACES_SAMPLER`: whether what was decided elsewhere holds, and the ratio for what begins here.
fn sampler(env: impl Fn(&str) -> Option<String>) -> Result<(bool, f64), String> {
    let Some(name) = env("OTEL_TRACES_SAMPLER") else { return Ok((true, 1.0)) };
    let (parent_based, kind) = match name.strip_prefix("parentbased_") {
        Some(kind) => (true, kind),
        None => (false, name.as_str()),
    };
    let ratio = match kind {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let written = env("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            written.parse().map_err(|_| format!("OTEL_TRACES_SAMPLER_ARG: `{written}` is not a number"))?
        }
        _ => return Err(format!("OTEL_TRACES_SAMPLER: `{name}` is not known here")),
    };
    Ok((parent_based, ratio))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(endpoint: Option<&str>, sample_ratio: Option<f64>) -> Option<WrittenTracing> {
        Some(WrittenTracing { otlp_endpoint: endpoint.map(str::to_owned), sample_ratio, service_name: None })
    }

    fn with<'a>(env: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn nothing_is_exported_unless_somebody_says_where() {
        assert_eq!(tracing(None, with(&[])), Ok(None));
        assert!(tracing(written(None, None), with(&[])).is_err());
        let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
        let found = tracing(None, with(&env)).unwrap().unwrap();
        assert_eq!((found.endpoint, found.parent_based, found.sample_ratio), (None, true, 1.0));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(tracing(written(Some("http://c"), None), with(&[env[0], off])), Ok(None));
        }
    }

    #[test]
    fn the_file_wins_over_the_environment() {
        let env = [
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_SERVICE_NAME", "mine"),
        ];
        let found = tracing(written(Some("http://c:4318/"), None), with(&env)).unwrap().unwrap();
        assert_eq!(found.endpoint.as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!((found.sample_ratio, found.parent_based, found.service_name), (0.25, false, None));
        let found =
            tracing(written(Some("https://c/otlp/v1/traces"), Some(0.5)), with(&env)).unwrap().unwrap();
        assert_eq!((found.endpoint.as_deref(), found.sample_ratio), (Some("https://c/otlp/v1/traces"), 0.5));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (endpoint, ratio) in
            [("c:4318", None), ("ftp://c", None), ("http://c:99999", None), ("http://c", Some(1.5))]
        {
            assert!(tracing(written(Some(endpoint), ratio), with(&[])).is_err(), "{endpoint}");
        }
        assert!(
            tracing(written(Some("http://c"), None), with(&[("OTEL_TRACES_SAMPLER", "jaeger")])).is_err()
        );
        let to = |to: &str| Some(WrittenAccessLog { to: to.to_owned() });
        assert!(access_log(to("stduot"), false).is_err());
        assert!(access_log(to("stdout"), true).is_err());
        assert_eq!(access_log(to("stdout"), false), Ok(Some(To::Stdout)));
    }
}
