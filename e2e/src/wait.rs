//! Waiting for a condition: polled until it holds, with a deadline that names what did not come.

use std::time::{Duration, Instant};

/// What a step may take on a slow, busy machine. Nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// Looks until there is a value. Panics with `what` after [`PATIENCE`].
pub async fn until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, condition).await
}

/// Looks until there is a value. Panics with `what` after `limit`.
pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
