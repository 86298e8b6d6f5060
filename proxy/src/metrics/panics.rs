//! Panics: each ends one request or one task, and should never be. The count is the process's, as the hook is.

use std::sync::{Once, OnceLock};

use prometheus::IntCounter;

static COUNTED: OnceLock<IntCounter> = OnceLock::new();
static HOOKED: Once = Once::new();

/// Counts panics from now on, besides whatever is done about them already.
pub(super) fn counter() -> Result<IntCounter, prometheus::Error> {
    let made = IntCounter::new("oakallow_panics_total", "Panics in this process")?;
    let counted = COUNTED.get_or_init(|| made).clone();
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            COUNTED.get().into_iter().for_each(IntCounter::inc);
            before(panic);
        }));
    });
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_once() {
        let counted = counter().unwrap();
        let again = counter().unwrap();
        let before = counted.get();
        assert!(std::thread::spawn(|| panic!("on purpose")).join().is_err());
        assert_eq!((counted.get(), again.get()), (before + 1, before + 1));
    }
}
