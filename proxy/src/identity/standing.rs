//! When to look at a caller's credential again while something of it stays open: when what it stands on changes, and
//! when its own time is over. In between nobody is woken, however many streams are open.

use std::time::Duration;

use oakallow_policy::timestamp::UnixMs;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::App;
use crate::clock;

/// How often the system's clock is compared with one that nobody sets; once for all streams.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Less than this is the clock's own unevenness, and a credential outlives its end by no more.
const STEP_MIN_MS: u64 = 500;

/// What is told of changes.
pub struct Standing {
    draining: watch::Receiver<bool>,
    /// Keys, with a new policy.
    policy: watch::Receiver<()>,
    /// What stands behind tokens and certificates, and the clock that they end by.
    trust: watch::Receiver<()>,
}

/// Why to look.
#[derive(Debug, PartialEq, Eq)]
pub enum Stir {
    /// Something changed, or it is time.
    Look,
    /// The proxy stops.
    Drain,
}

impl Standing {
    /// To be asked for before the first look: what changes in between is told.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self {
            draining: app.draining.subscribe(),
            policy: app.policy.subscribe(),
            trust: app.trust.subscribe(),
        }
    }

    /// Waits for a reason to look again, the last of which is the end of the credential, if it has one.
    pub async fn stirs(&mut self, end: Option<UnixMs>) -> Stir {
        tokio::select! {
            // The senders live as long as the proxy.
            _ = self.draining.wait_for(|draining| *draining) => Stir::Drain,
            _ = self.policy.changed() => Stir::Look,
            _ = self.trust.changed() => Stir::Look,
            () = over(end) => Stir::Look,
        }
    }
}

async fn over(end: Option<UnixMs>) {
    let Some(end) = end else { return std::future::pending().await };
    // A moment more: at the end itself it is over, and clocks have no halves.
    let left = end.saturating_sub(clock::now_ms()).saturating_add(1);
    tokio::time::sleep(Duration::from_millis(left)).await;
}

/// Has everybody look again when the system's clock is set, or has stood still: their timers run by another one.
pub async fn follow_clock(trust: watch::Sender<()>) {
    let (mut wall, mut steady) = (clock::now_ms(), Instant::now());
    loop {
        tokio::time::sleep(COMPARE_EVERY).await;
        let passed = u64::try_from(steady.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = clock::now_ms();
        if now.abs_diff(wall.saturating_add(passed)) >= STEP_MIN_MS {
            trust.send_replace(());
        }
        (wall, steady) = (now, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told {
        draining: watch::Sender<bool>,
        policy: watch::Sender<()>,
        trust: watch::Sender<()>,
    }

    fn standing() -> (Told, Standing) {
        let told = Told {
            draining: watch::Sender::new(false),
            policy: watch::Sender::new(()),
            trust: watch::Sender::new(()),
        };
        let (draining, policy, trust) =
            (told.draining.subscribe(), told.policy.subscribe(), told.trust.subscribe());
        (told, Standing { draining, policy, trust })
    }

    /// Whether something stirs within this time, of which nobody waits a moment.
    async fn stirs_within(standing: &mut Standing, end: Option<UnixMs>, within: Duration) -> Option<Stir> {
        tokio::time::timeout(within, standing.stirs(end)).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_woken_for_nothing() {
        let (_told, mut standing) = standing();
        let (day, year) = (Duration::from_secs(24 * 3600), clock::now_ms() + 365 * 24 * 3600 * 1000);
        assert_eq!(stirs_within(&mut standing, None, day).await, None);
        assert_eq!(stirs_within(&mut standing, Some(year), day).await, None);
        assert_eq!(stirs_within(&mut standing, Some(UnixMs::MAX), day).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_told_at_once_and_once() {
        let (told, mut standing) = standing();
        let moment = Duration::from_millis(10);
        for change in [&told.policy, &told.trust] {
            // While nobody waits.
            change.send_replace(());
            assert_eq!(stirs_within(&mut standing, None, moment).await, Some(Stir::Look));
            assert_eq!(stirs_within(&mut standing, None, moment).await, None);
        }
        told.draining.send_replace(true);
        assert_eq!(stirs_within(&mut standing, None, moment).await, Some(Stir::Drain));
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_is_looked_at_when_its_time_is_over() {
        let (_told, mut standing) = standing();
        let end = Some(clock::now_ms() + 60_000);
        assert_eq!(stirs_within(&mut standing, end, Duration::from_secs(50)).await, None);
        assert_eq!(stirs_within(&mut standing, end, Duration::from_secs(61)).await, Some(Stir::Look));
        // It was over before anybody asked.
        assert_eq!(stirs_within(&mut standing, Some(0), Duration::from_millis(10)).await, Some(Stir::Look));
    }
}
