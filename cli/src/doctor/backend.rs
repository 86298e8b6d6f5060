//! Whether the backend can be reached, agrees on the time, and knows the agent's key.

use std::env;
use std::time::UNIX_EPOCH;

use oakallow_backend::Clock;
use reqwest::header::DATE;
use reqwest::tls::TlsInfo;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Finding, Verdict, cause};

/// Clocks that differ by more spoil the times in the log; by much more, tokens that live for seconds.
const CLOCK_WARN_S: u64 = 2;
const CLOCK_FAIL_S: u64 = 15;
/// A certificate that is renewed in time has longer.
const CERTIFICATE_DAYS: i64 = 14;

pub(super) async fn examine(http: &reqwest::Client, url: &str) -> Vec<Finding> {
    let answer = match http.get(format!("{url}/healthz")).send().await {
        Ok(answer) => answer,
        Err(e) => {
            return vec![Finding::new("backend", url, Verdict::Fail, format!("no answer: {}", cause(&e)))];
        }
    };
    let mut findings = vec![if answer.status().is_success() {
        Finding::new("backend", url, Verdict::Ok, "it answers")
    } else {
        let status = answer.status().as_u16();
        Finding::new(
            "backend",
            url,
            Verdict::Fail,
            format!("/healthz answers {status}: is this the backend?"),
        )
    }];
    findings.extend(clock(&answer, url));
    findings.extend(certificate(&answer, url));
    if let Ok(key) = env::var("OAKALLOW_API_KEY") {
        findings.push(key_known(http, url, &key).await);
    }
    findings
}

/// The backend's time beside ours; HTTP tells it in whole seconds.
fn clock(answer: &reqwest::Response, url: &str) -> Option<Finding> {
    let theirs = answer.headers().get(DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(theirs).ok()?;
    let ours = Clock::system().now_ms() / 1_000;
    let apart = theirs.duration_since(UNIX_EPOCH).ok()?.as_secs().abs_diff(ours);
    let verdict = match apart {
        0..=CLOCK_WARN_S => Verdict::Ok,
        s if s <= CLOCK_FAIL_S => Verdict::Warn,
        _ => Verdict::Fail,
    };
    let fix = if verdict == Verdict::Ok { "" } else { ": synchronise them (NTP), tokens live for seconds" };
    Some(Finding::new("clock", url, verdict, format!("the clocks are {apart} s apart{fix}")))
}

/// How long the certificate of an `https` address is good for. That it is trusted is why there was an answer.
pub(super) fn certificate(answer: &reqwest::Response, url: &str) -> Option<Finding> {
    let der = answer.extensions().get::<TlsInfo>()?.peer_certificate()?;
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let days = certificate.validity().time_to_expiration().map_or(0, |left| left.whole_days());
    Some(good_for(url, days))
}

/// A certificate that is good for so many more days; fewer than none when it has ended.
pub(super) fn good_for(subject: &str, days: i64) -> Finding {
    match days {
        ..0 => Finding::new("tls", subject, Verdict::Fail, "its certificate has ended: renew it"),
        _ => {
            let verdict = if days < CERTIFICATE_DAYS { Verdict::Warn } else { Verdict::Ok };
            Finding::new("tls", subject, verdict, format!("its certificate is good for {days} more days"))
        }
    }
}

/// Asks for one approval, which changes nothing.
async fn key_known(http: &reqwest::Client, url: &str, key: &str) -> Finding {
    let request = http.get(format!("{url}/v1/approvals?limit=1")).header("x-api-key", key);
    let finding = |verdict, detail: String| Finding::new("key", "OAKALLOW_API_KEY", verdict, detail);
    match request.send().await {
        Ok(answer) if answer.status().as_u16() == 401 => finding(
            Verdict::Fail,
            "the backend does not know this key: it is mistyped, expired or revoked".to_owned(),
        ),
        Ok(answer) if answer.status().is_server_error() => {
            finding(Verdict::Fail, format!("the backend answers {}", answer.status().as_u16()))
        }
        Ok(_) => finding(Verdict::Ok, "the backend knows this key".to_owned()),
        Err(e) => finding(Verdict::Fail, cause(&e)),
    }
}
