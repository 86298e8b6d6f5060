//! Memory for the bodies of requests that are read, decided and sent on: so much of all, and so much of one
//! principal, lest one agent that sends without end takes it all. Held calls are counted elsewhere
//! ([`crate::approval`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oakallow_policy::id::Name;

use crate::config::Limits;
use crate::refusal::Refusal;

/// A body of this size costs no more than the rest of its request does, and is not counted: most calls are smaller.
const UNCOUNTED: usize = 16 * 1024;

/// All that is taken.
#[derive(Default)]
pub struct Bodies(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    per_principal: HashMap<Name, usize>,
}

/// What one request takes, for as long as it lives.
pub struct Share {
    bodies: Arc<Bodies>,
    principal: Name,
    bytes: usize,
}

impl Bodies {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Whole after every step, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().all
    }

    /// Takes so many bytes for a request of this principal, which may have a share already.
    pub fn take(
        self: &Arc<Self>,
        share: &mut Option<Share>,
        principal: &Name,
        bytes: usize,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if bytes <= UNCOUNTED {
            return Ok(());
        }
        let before = share.as_ref().map_or(0, |share| share.bytes);
        let more = bytes.saturating_sub(before);
        if more == 0 {
            return Ok(());
        }
        let mut taken = self.lock();
        let own = taken.per_principal.get(principal).copied().unwrap_or_default() + more;
        if own > limits.bodies_bytes_per_principal_max {
            return Err(Refusal::TooManyBodies { own: true });
        }
        if taken.all + more > limits.bodies_bytes_max {
            return Err(Refusal::TooManyBodies { own: false });
        }
        taken.all += more;
        match taken.per_principal.get_mut(principal) {
            Some(bytes) => *bytes = own,
            None => drop(taken.per_principal.insert(principal.clone(), own)),
        }
        drop(taken);
        let share = share.get_or_insert_with(|| Share {
            bodies: self.clone(),
            principal: principal.clone(),
            bytes: 0,
        });
        share.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.bodies.lock();
        taken.all -= self.bytes;
        if let Some(own) = taken.per_principal.get_mut(&self.principal) {
            *own -= self.bytes;
            if *own == 0 {
                taken.per_principal.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_to_the_byte() {
        let bodies = Arc::new(Bodies::default());
        let name = |name: &str| Name::new(name).unwrap();
        let limits = Limits {
            bodies_bytes_max: 5 * UNCOUNTED,
            bodies_bytes_per_principal_max: 3 * UNCOUNTED,
            ..Limits::default()
        };
        let take = |share: &mut Option<Share>, who: &str, bytes: usize| {
            bodies.take(share, &name(who), bytes, &limits).map_err(|refusal| refusal.answer().status)
        };
        let (mut a, mut b, mut small) = (None, None, None);
        assert_eq!(take(&mut small, "a", UNCOUNTED), Ok(()));
        assert_eq!(bodies.bytes(), 0);
        assert_eq!(take(&mut a, "a", 2 * UNCOUNTED), Ok(()));
        assert_eq!(take(&mut a, "a", 3 * UNCOUNTED), Ok(()));
        assert_eq!(take(&mut small, "a", UNCOUNTED + 1), Err(429));
        assert_eq!(take(&mut b, "b", 3 * UNCOUNTED), Err(503));
        assert_eq!(take(&mut b, "b", 2 * UNCOUNTED), Ok(()));
        assert_eq!(bodies.bytes(), 5 * UNCOUNTED);
        drop((a, b));
        assert!(small.is_none());
        assert_eq!((bodies.bytes(), bodies.lock().per_principal.len()), (0, 0));
    }
}
