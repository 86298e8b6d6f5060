//! How long ago the backend said that the policy is current, and for which calls that is recent enough.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use oakallow_policy::RiskLevel;

use crate::clock;
use crate::config::Staleness;

/// The age of a policy.
pub(super) struct Freshness {
    confirmed: Mutex<Confirmed>,
    limits: ArcSwap<Staleness>,
    /// By how many milliseconds our clock was ahead of the backend's when that last said something.
    ahead_ms: AtomicI64,
}

/// That the backend said that it is current.
#[derive(Clone, Copy)]
struct Confirmed {
    /// When it was, by the backend's clock: milliseconds since 1970.
    said: u64,
    /// The same, and never later than it was here.
    at: u64,
    /// How old that was when it was heard, in milliseconds, and when that was.
    age_ms: u64,
    heard: Instant,
}

impl Confirmed {
    fn new(said: u64, now_ms: u64, heard: Instant) -> Self {
        let at = said.min(now_ms);
        Self { said, at, age_ms: now_ms - at, heard }
    }

    /// By two clocks: one may be set back, the other stands still while the machine sleeps. The older counts.
    fn age_ms(&self, now_ms: u64, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.heard);
        let steady = Duration::from_millis(self.age_ms).saturating_add(since);
        now_ms.saturating_sub(self.at).max(u64::try_from(steady.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Freshness {
    /// Never confirmed.
    pub(super) fn new(limits: Staleness) -> Self {
        let never = Confirmed::new(0, clock::now_ms(), Instant::now());
        Self {
            confirmed: Mutex::new(never),
            limits: ArcSwap::from_pointee(limits),
            ahead_ms: AtomicI64::new(0),
        }
    }

    fn last(&self) -> MutexGuard<'_, Confirmed> {
        // One value, replaced whole.
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_limits(&self, limits: Staleness) {
        self.limits.store(Arc::new(limits));
    }

    /// It was current at `at`. Not when that was heard: a recorded confirmation must not make a policy
    /// fresh again, and a clock that is ahead of ours not fresher than fresh.
    pub(super) fn confirmed(&self, at: u64) {
        self.heard(Confirmed::new(at, clock::now_ms(), Instant::now()));
    }

    /// The same, said by the backend just now.
    pub(super) fn confirmed_now(&self, at: u64) {
        let milliseconds = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        let ahead_ms = milliseconds(clock::now_ms()).saturating_sub(milliseconds(at));
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        self.confirmed(at);
    }

    pub(super) fn ahead_s(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed) / 1_000
    }

    fn heard(&self, next: Confirmed) {
        let mut last = self.last();
        // What was said before is not news, whatever our clock says by now.
        if next.said > last.said || next.at > last.at {
            *last = next;
        }
    }

    pub(super) fn age_s(&self) -> u64 {
        self.last().age_ms(clock::now_ms(), Instant::now()) / 1_000
    }

    pub(super) fn suffices(&self, risk: RiskLevel) -> bool {
        self.age_s() <= self.limits.load().limit_s(risk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_policy_decides_only_what_its_age_allows() {
        for (age_s, fresh) in [(10, 4), (100, 3), (1_000, 2), (20_000, 1), (100_000, 0)] {
            let freshness = Freshness::new(Staleness::default());
            freshness.confirmed(clock::now_ms() - age_s * 1_000);
            let levels = [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High, RiskLevel::Critical];
            assert_eq!(levels.into_iter().filter(|r| freshness.suffices(*r)).count(), fresh, "{age_s} s");
        }
    }

    #[test]
    fn what_was_never_confirmed_decides_nothing() {
        assert!(!Freshness::new(Staleness::default()).suffices(RiskLevel::Low));
    }

    #[test]
    fn neither_an_old_confirmation_nor_one_from_the_future_makes_it_fresher() {
        let freshness = Freshness::new(Staleness::default());
        freshness.confirmed(clock::now_ms() - 100_000);
        freshness.confirmed(clock::now_ms() - 200_000);
        assert!((100..110).contains(&freshness.age_s()));
        freshness.confirmed(clock::now_ms() + 1_000_000);
        let ahead = freshness.last().at.saturating_sub(clock::now_ms());
        assert_eq!(ahead, 0, "confirmed in the future");
    }

    /// An hour, in milliseconds.
    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_clock_that_is_set_back_makes_no_policy_younger() {
        let (begun, noon) = (Instant::now(), 500_000 * HOUR);
        let confirmed = Confirmed::new(noon, noon, begun);
        let later = |hours: u64| begun + Duration::from_millis(hours * HOUR);
        assert_eq!(confirmed.age_ms(noon + HOUR, later(1)), HOUR);
        assert_eq!(confirmed.age_ms(noon - 10 * HOUR, later(2)), 2 * HOUR, "set back");
        assert_eq!(confirmed.age_ms(noon + 10 * HOUR, later(2)), 10 * HOUR, "set forward, or asleep");
    }

    #[test]
    fn a_confirmation_that_is_sent_again_confirms_nothing_after_the_clock_was_set_back_and_a_new_one_does() {
        let (begun, noon) = (Instant::now(), 500_000 * HOUR);
        let later = begun + Duration::from_millis(HOUR);
        let freshness = Freshness::new(Staleness::default());
        freshness.heard(Confirmed::new(noon, noon, begun));
        freshness.heard(Confirmed::new(noon - HOUR, noon - HOUR, later));
        freshness.heard(Confirmed::new(noon, noon - HOUR, later));
        assert_eq!(freshness.last().age_ms(noon - HOUR, later), HOUR);
        freshness.heard(Confirmed::new(noon + HOUR, noon - HOUR, later));
        assert_eq!(freshness.last().age_ms(noon - HOUR, later), 0);
    }
}
