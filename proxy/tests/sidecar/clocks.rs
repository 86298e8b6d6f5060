//! The clock of a proxy is set, by libfaketime, while the proxy runs; the rest of the world keeps the right time.

use std::time::Duration;

use oakallow_policy::token::{Claims, LIFETIME_S_MAX, TokenError, TokenKey, verify};
use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::policy::{AUDIENCE, OrgBundle, now_ms};
use crate::support::process::{Clock, Process};
use crate::support::sidecar::config_text;
use crate::support::until;
use crate::support::upstream::Upstream;

struct Shifted {
    backend: Backend,
    upstream: Upstream,
    proxy: Process,
    clock: Clock,
    _dir: tempfile::TempDir,
}

/// A proxy whose clock is right so far.
async fn start(more: Value) -> Shifted {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let (config, clock) = (dir.path().join("proxy.yaml"), Clock::right(&dir.path().join("clock")));
    std::fs::write(&config, config_text(dir.path(), &backend.url, &upstream.url, &more)).unwrap();
    let proxy = Process::start_by(&config, &clock);
    Shifted { backend, upstream, proxy, clock, _dir: dir }
}

impl Shifted {
    /// Calls, and verifies the token as its tool server does, which has the right time.
    async fn token(&self) -> Result<Claims, TokenError> {
        let before = self.upstream.count();
        assert_eq!(self.proxy.call("read").send().await.unwrap().status(), 200);
        let seen = self.upstream.seen();
        assert_eq!(seen.len(), before + 1);
        let token = seen[before].headers[oakallow_policy::token::HEADER].to_str().unwrap();
        let key = TokenKey::from_bytes(format!("1.{AUDIENCE}"), [9; 32]);
        verify(token, &[key], AUDIENCE, now_ms() / 1_000)
    }

    async fn is_held(&self) {
        let held = async || (self.proxy.metric("oakallow_held_calls").await == 1.0).then_some(());
        until("a held call", held).await;
    }
}

#[tokio::test]
async fn a_token_of_a_clock_that_is_minutes_off_is_refused_and_one_of_a_clock_put_right_is_good() {
    let shifted = start(json!({})).await;
    for (off_s, expected) in [
        (0, None),
        (3, None),
        (-3, None),
        (180, Some(TokenError::NotYetValid)),
        (-180, Some(TokenError::Expired)),
        (0, None),
    ] {
        shifted.clock.is_off_by(off_s);
        match shifted.token().await {
            Ok(claims) => {
                assert_eq!(expected, None, "{off_s}");
                assert!(claims.exp > claims.iat && claims.exp - claims.iat <= LIFETIME_S_MAX);
            }
            Err(refused) => assert_eq!(Some(refused), expected, "{off_s}"),
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_off_shows_when_the_backend_says_something() {
    let shifted = start(json!({})).await;
    for (version, off_s) in [(6, 180), (7, -180), (8, 0)] {
        shifted.clock.is_off_by(off_s);
        shifted.backend.publish(version, OrgBundle::new(version).signed());
        let shown = async || {
            let ahead = shifted.proxy.metric("oakallow_clock_ahead_seconds").await;
            ((ahead - off_s as f64).abs() <= 5.0).then_some(())
        };
        until(&format!("a clock that is ahead by {off_s} s"), shown).await;
    }
}

#[tokio::test]
async fn a_hold_does_not_end_early_when_the_clock_is_set_forth_and_its_approval_is_for_the_backend_to_end() {
    let shifted = start(json!({"hold": {"budget_s": 600}})).await;
    let held = tokio::spawn(shifted.proxy.call("ask").send());
    shifted.is_held().await;
    // Beyond the budget, and beyond the end of the approval.
    shifted.clock.is_off_by(2 * 3_600);
    // What happens by the clock has happened when a call that came later is answered.
    assert_eq!(shifted.proxy.call("read").send().await.unwrap().status(), 200);
    shifted.is_held().await;
    shifted.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert_eq!(shifted.upstream.count(), 2);
}

#[tokio::test]
async fn a_hold_does_not_last_longer_when_the_clock_is_set_back() {
    let shifted = start(json!({"hold": {"budget_s": 2}})).await;
    let held = tokio::spawn(shifted.proxy.call("ask").send());
    shifted.is_held().await;
    shifted.clock.is_off_by(-3_600);
    let answer = tokio::time::timeout(Duration::from_secs(20), held).await.expect("its budget is over");
    assert_eq!(answer.unwrap().unwrap().status(), 202);
    assert_eq!(shifted.upstream.count(), 0);
}

#[tokio::test]
async fn a_clock_that_is_set_forth_refuses_what_its_policy_is_too_old_for() {
    let shifted = start(json!({})).await;
    assert_eq!(shifted.proxy.call("wipe").send().await.unwrap().status(), 200);
    // An hour: too much for high risk, not for medium.
    shifted.clock.is_off_by(3_600);
    let refused = shifted.proxy.call("wipe").send().await.unwrap();
    assert_eq!(refused.status(), 503);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["code"], "policy_unavailable");
    assert_eq!(shifted.proxy.call("read").send().await.unwrap().status(), 200);
    shifted.clock.is_off_by(0);
    assert_eq!(shifted.proxy.call("wipe").send().await.unwrap().status(), 200);
}
