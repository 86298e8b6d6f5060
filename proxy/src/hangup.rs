//! SIGHUP: whoever runs the proxy asks it to look at its files.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears it. Where the signal cannot be had, nobody asks.
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// From now on; `what` is what it is heard for.
    #[must_use]
    pub fn listen(what: &str) -> Self {
        match signal(SignalKind::hangup()) {
            Ok(signal) => Self(Some(signal)),
            Err(e) => {
                tracing::error!(error = %e, what, "SIGHUP cannot be heard");
                Self(None)
            }
        }
    }

    /// Resolves when somebody asks.
    pub async fn asked(&mut self) {
        match &mut self.0 {
            Some(signal) => _ = signal.recv().await,
            None => std::future::pending().await,
        }
    }
}
