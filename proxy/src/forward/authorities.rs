//! The authorities that this system trusts: one store for all routes. Reading it takes a while (it is hundreds of
//! certificates), and whoever reads has a thread for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// As this process knows them.
pub(super) static SYSTEM: Authorities = Authorities::new(|| rustls_native_certs::load_native_certs().certs);

pub(super) struct Authorities {
    read: fn() -> Vec<CertificateDer<'static>>,
    known: Mutex<Option<Known>>,
}

struct Known {
    since: Instant,
    store: Arc<RootCertStore>,
}

impl Authorities {
    const fn new(read: fn() -> Vec<CertificateDer<'static>>) -> Self {
        Self { read, known: Mutex::new(None) }
    }

    /// As they were last read; read now, if that was before this moment or never.
    pub(super) fn store(&self, not_before: Option<Instant>) -> Arc<RootCertStore> {
        // Held while they are read: others that want them wait for this instead of reading them too.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| not_before.is_none_or(|at| known.since >= at)) {
            return known.store.clone();
        }
        let since = Instant::now();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates((self.read)());
        let store = Arc::new(store);
        *known = Some(Known { since, store: store.clone() });
        store
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_once_and_again_when_somebody_wants_newer_ones() {
        let authorities = Authorities::new(Vec::new);
        let before = Instant::now();
        let first = authorities.store(None);
        assert!(Arc::ptr_eq(&first, &authorities.store(None)));
        assert!(Arc::ptr_eq(&first, &authorities.store(Some(before))), "read since then");
        let again = authorities.store(Some(Instant::now()));
        assert!(!Arc::ptr_eq(&first, &again));
        assert!(Arc::ptr_eq(&again, &authorities.store(None)));
    }
}
