//! Who writes in an org next, within this process: first come, first served, and one connection for each org however
//! many wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// Orgs are forgotten once there are this many that nobody writes in.
const KEPT: usize = 1024;

/// One's turn; the next one's begins when it is dropped.
pub(crate) type Turn = OwnedMutexGuard<()>;

#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub(super) async fn take(&self, org: &str) -> Turn {
        self.of(org).lock_owned().await
    }

    fn of(&self, org: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut orgs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = orgs.get(org).and_then(Weak::upgrade) {
            return turn;
        }
        if orgs.len() >= KEPT {
            orgs.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        orgs.insert(org.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_is_at_work_in_an_org_and_other_orgs_do_not_wait() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        assert!(turns.take("a").now_or_never().is_none());
        assert!(turns.take("b").now_or_never().is_some());
        drop(first);
        assert!(turns.take("a").now_or_never().is_some());
    }
}
