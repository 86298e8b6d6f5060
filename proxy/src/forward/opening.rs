//! Connections that are being opened and that several requests will share. Whoever finds no place waits for them
//! as long as they will have enough, and otherwise opens one too: a burst does not open a connection for each of
//! its requests, nor one after another.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

#[derive(Default)]
pub(super) struct Openings {
    places: Mutex<Places>,
    changed: Notify,
}

#[derive(Default)]
struct Places {
    /// On connections that are being opened, beside those of whoever opens them.
    promised: usize,
    /// Who waits for one.
    waiting: usize,
}

/// What a request without a connection does.
pub(super) enum Turn<'a> {
    Opens(Opening<'a>),
    Waits(Waiting<'a>),
}

/// A connection being opened; others stop waiting for it when this is dropped.
pub(super) struct Opening<'a> {
    openings: &'a Openings,
    promised: usize,
}

/// A request that waits for a connection of others.
pub(super) struct Waiting<'a>(&'a Openings);

impl Openings {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next end of an opening, good or bad. To be made before [`Self::turn`] is asked: none is missed then.
    pub(super) fn ended(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Whether to open a connection, which would have room for so many requests.
    pub(super) fn turn(&self, room: usize) -> Turn<'_> {
        let mut places = self.places();
        if places.promised > places.waiting {
            places.waiting += 1;
            return Turn::Waits(Waiting(self));
        }
        let promised = room.saturating_sub(1);
        places.promised += promised;
        Turn::Opens(Opening { openings: self, promised })
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.openings.places().promised -= self.promised;
        self.openings.changed.notify_waiters();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.places().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_connections_are_opened_as_are_needed() {
        let openings = Openings::default();
        let opens = |room| match openings.turn(room) {
            Turn::Opens(opening) => Ok(opening),
            Turn::Waits(waiting) => Err(waiting),
        };
        let turns: Vec<_> = (0..7).map(|_| opens(3)).collect();
        let opened: Vec<bool> = turns.iter().map(Result::is_ok).collect();
        assert_eq!(opened, [true, false, false, true, false, false, true]);
        drop(turns);
        // One request each: nobody waits for anybody.
        let turns: Vec<_> = (0..3).map(|_| opens(1)).collect();
        assert!(turns.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn an_end_is_not_missed() {
        let openings = Openings::default();
        let first = openings.turn(2);
        let ended = openings.ended();
        let Turn::Waits(_waiting) = openings.turn(2) else { panic!("there is a place") };
        drop(first);
        ended.await;
        assert!(matches!(openings.turn(2), Turn::Opens(_)), "it has to be opened by somebody else");
    }
}
