//! What somebody keeps who watches a log, a proxy among others: the last checkpoint that it saw. A log that was
//! forked, or cut, cannot prove that it goes on from there.

use super::{Checkpoint, CheckpointError, Consistency, Hash, LogKey, ProofError};

/// One log, as far as it was seen.
#[derive(Debug, Clone)]
pub struct Watch {
    keys: Vec<LogKey>,
    seen: Option<Checkpoint>,
}

/// Why a checkpoint is not taken: the log is not the one that was seen before, or says so badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum WatchError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("two logs of one name: `{seen}` was seen, this is `{found}`")]
    Origin { seen: String, found: String },
    #[error("the proof is from {before} to {size} leaves, asked for was from {seen} to {found}")]
    OtherProof { before: u64, size: u64, seen: u64, found: u64 },
    #[error("the log was forked: its {size} leaves do not go on from the {seen} that were seen")]
    Forked { seen: u64, size: u64 },
    #[error("the log was cut: {seen} leaves were seen, now it has {size}")]
    Cut { seen: u64, size: u64 },
    #[error(transparent)]
    Proof(ProofError),
}

impl Watch {
    /// Goes on from what was kept; from nothing, the first checkpoint is believed.
    #[must_use]
    pub const fn new(keys: Vec<LogKey>, seen: Option<Checkpoint>) -> Self {
        Self { keys, seen }
    }

    /// The last one that was taken: what has to be kept.
    #[must_use]
    pub const fn seen(&self) -> Option<&Checkpoint> {
        self.seen.as_ref()
    }

    /// The size that the next proof has to begin with.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.seen.as_ref().map_or(0, |seen| seen.size)
    }

    /// Takes a checkpoint that goes on from the last one. After an error nothing has changed.
    pub fn take(&mut self, note: &str, proof: &Consistency) -> Result<&Checkpoint, WatchError> {
        let found = Checkpoint::open(note, &self.keys)?;
        if let Some(seen) = &self.seen {
            goes_on(seen, &found, proof)?;
        }
        Ok(self.seen.insert(found))
    }
}

fn goes_on(seen: &Checkpoint, found: &Checkpoint, proof: &Consistency) -> Result<(), WatchError> {
    if seen.origin != found.origin {
        return Err(WatchError::Origin { seen: seen.origin.clone(), found: found.origin.clone() });
    }
    if found.size < seen.size {
        return Err(WatchError::Cut { seen: seen.size, size: found.size });
    }
    // Of an empty tree there is one root: whoever signed another has lied already.
    let forked = WatchError::Forked { seen: seen.size, size: found.size };
    if seen.size == 0 && seen.root != Hash::EMPTY || seen.size == found.size && seen.root != found.root {
        return Err(forked);
    }
    if (proof.before, proof.size) != (seen.size, found.size) {
        let Consistency { before, size, .. } = *proof;
        return Err(WatchError::OtherProof { before, size, seen: seen.size, found: found.size });
    }
    proof.check(seen.root, found.root).map_err(|error| match error {
        ProofError::Wrong => forked,
        other => WatchError::Proof(other),
    })
}
