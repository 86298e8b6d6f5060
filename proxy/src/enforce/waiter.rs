//! Who waits while a call is held.

use tokio::time::Instant;

use crate::client::Gone;

/// The agent's side of a held call, whatever protocol it came by.
pub trait Waiter: Send {
    /// The hold begins.
    fn hold_begins(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// When the agent should hear something next.
    fn next_beat(&self) -> Option<Instant>;

    /// Tells the agent that it is still waiting.
    fn beat(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Resolves when the agent has left or cancelled. May be dropped at any time.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
}
