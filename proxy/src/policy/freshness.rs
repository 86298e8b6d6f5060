//! How long ago the backend said that the policy is current, and for which calls that is recent enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use oakallow_policy::RiskLevel;

use crate::clock;
use crate::config::Staleness;

/// The age of a policy.
pub(super) struct Freshness {
    /// When the backend last said that this is current, milliseconds since 1970.
    confirmed_at: AtomicU64,
    limits: ArcSwap<Staleness>,
}

impl Freshness {
    /// Never confirmed.
    pub(super) fn new(limits: Staleness) -> Self {
        Self { confirmed_at: AtomicU64::new(0), limits: ArcSwap::from_pointee(limits) }
    }

    pub(super) fn set_limits(&self, limits: Staleness) {
        self.limits.store(Arc::new(limits));
    }

    /// It was current at `at`. Not when that was heard: a recorded confirmation must not make a policy
    /// fresh again, and a clock that is ahead of ours not fresher than fresh.
    pub(super) fn confirmed(&self, at: u64) {
        self.confirmed_at.fetch_max(at.min(clock::now_ms()), Ordering::Relaxed);
    }

    pub(super) fn age_s(&self) -> u64 {
        clock::now_ms().saturating_sub(self.confirmed_at.load(Ordering::Relaxed)) / 1_000
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
        let ahead = freshness.confirmed_at.load(Ordering::Relaxed).saturating_sub(clock::now_ms());
        assert_eq!(ahead, 0, "confirmed in the future");
    }
}
