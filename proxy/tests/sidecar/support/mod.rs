//! What the tests stand on.

pub(crate) mod backend;
pub(crate) mod broken;
pub(crate) mod collector;
pub(crate) mod flooded;
pub(crate) mod h2;
pub(crate) mod issuer;
pub(crate) mod pki;
pub(crate) mod policy;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod sidecar;
pub(crate) mod slow;
pub(crate) mod tool;
pub(crate) mod upstream;

use std::time::Duration;

/// Longest wait for something that is about to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// The same, with more or less patience.
pub(crate) async fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
