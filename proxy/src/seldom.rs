//! When the log tells of what may happen with every request: now and then, not each time.

use std::time::Duration;

use tokio::time::Instant;

/// One thing to tell of.
pub struct Seldom {
    every: Duration,
    last: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Told once in so long at most.
    #[must_use]
    pub const fn once_in(every: Duration) -> Self {
        Self { every, last: None, untold: 0 }
    }

    /// It has happened: if it is to be told, how many times it was not since the last time.
    pub fn tells(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < self.every) {
            self.untold += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_told_once_and_counted() {
        let every = Duration::from_secs(30);
        let mut seldom = Seldom::once_in(every);
        let told = [(); 4].map(|()| seldom.tells());
        assert_eq!(told, [Some(0), None, None, None]);
        tokio::time::advance(every).await;
        assert_eq!([(); 2].map(|()| seldom.tells()), [Some(3), None]);
    }
}
