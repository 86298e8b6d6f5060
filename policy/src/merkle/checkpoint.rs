//! Signed tree heads: texts of three lines, signed (C2SP tlog-checkpoint and signed-note).
//!
//! ```text
//! audit.example.com/acme
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — audit.example.com/acme Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```

use std::fmt::{self, Write as _};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use signed_note::{Note, NoteError, VerificationError, Verifier, Verifiers};

use super::{Hash, SIZE_MAX};
use crate::canonical::{hex, unhex};
use crate::id::Name;

/// What the specification calls Ed25519.
const ED25519: u8 = 1;
/// Longest note that is read. Ours has 200 bytes; witnesses may add their signatures.
const NOTE_BYTES_MAX: usize = 64 * 1024;

/// A tree head: what one log says about its size and contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log; also the name of the key that signs.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

/// Why a text is not a checkpoint of this log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CheckpointError {
    #[error("it is not a signed note of at most {NOTE_BYTES_MAX} bytes")]
    Note,
    #[error("none of the log's keys signed it")]
    Unsigned,
    #[error("a signature that names one of the log's keys does not fit")]
    Signature,
    #[error("signed, but it is not a checkpoint: three lines, the origin, the size and the root")]
    Text,
    #[error("it is of the log `{0}`")]
    Origin(String),
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// The text and the signature, as it is kept and served.
    #[must_use]
    pub fn sign(&self, signer: &LogSigner) -> String {
        let text = self.text();
        let signature = signer.key.sign(text.as_bytes()).to_bytes();
        let line = [signer.public.id().to_be_bytes().as_slice(), &signature].concat();
        format!("{text}\n— {} {}\n", signer.public.name, STANDARD.encode(line))
    }

    /// Reads a note that one of the keys signed. Signatures of unknown keys (witnesses) are passed over; one of a
    /// known key must fit. The checkpoint is that of the log whose name the key has.
    pub fn open(note: &str, keys: &[LogKey]) -> Result<Self, CheckpointError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(CheckpointError::Note);
        }
        let parsed = Note::from_bytes(note.as_bytes()).map_err(|_| CheckpointError::Note)?;
        let (signed, _) = parsed.verify(&Known(keys)).map_err(|error| match error {
            NoteError::UnverifiedNote => CheckpointError::Unsigned,
            _ => CheckpointError::Signature,
        })?;
        let text = std::str::from_utf8(parsed.text()).map_err(|_| CheckpointError::Note)?;
        let checkpoint = Self::parse(text).ok_or(CheckpointError::Text)?;
        if signed.iter().all(|signature| signature.name() == checkpoint.origin) {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Origin(checkpoint.origin))
        }
    }

    /// Without extension lines: nobody could check what they say.
    fn parse(text: &str) -> Option<Self> {
        let read = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).ok()?;
        let checkpoint =
            Self { origin: read.origin().to_owned(), size: read.size(), root: Hash(read.hash().0) };
        (checkpoint.size <= SIZE_MAX && checkpoint.text() == text).then_some(checkpoint)
    }
}

/// A public key of a log, by which its checkpoints are known. Written `<name>+<id>+<base64>`, as Go's tools do.
#[derive(Clone, PartialEq, Eq)]
pub struct LogKey {
    name: String,
    key: VerifyingKey,
}

/// The text is no key of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key of a log: `<name>+<id>+<key>`, an Ed25519 key and the id that belongs to it")]
pub struct LogKeyError;

impl LogKey {
    /// Of a log of that name, which is its origin.
    pub fn new(name: &str, key: VerifyingKey) -> Result<Self, LogKeyError> {
        if !signed_note::is_key_name_valid(name) || name.chars().any(char::is_control) {
            return Err(LogKeyError);
        }
        Ok(Self { name: name.to_owned(), key })
    }

    /// The log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name ‖ newline ‖ 0x01 ‖ key): to find it by, no proof of anything.
    #[must_use]
    pub fn id(&self) -> u32 {
        signed_note::key_id(&self.name, &self.typed())
    }

    fn typed(&self) -> Vec<u8> {
        [&[ED25519], self.key.as_bytes().as_slice()].concat()
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = hex(&self.id().to_be_bytes());
        write!(f, "{}+{id}+{}", self.name, STANDARD.encode(self.typed()))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogKey {
    type Err = LogKeyError;

    fn from_str(text: &str) -> Result<Self, LogKeyError> {
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(LogKeyError);
        let (name, id, key) = (part()?, part()?, part()?);
        let typed = STANDARD.decode(key).map_err(|_| LogKeyError)?;
        let Some((&ED25519, key)) = typed.split_first() else { return Err(LogKeyError) };
        let key = key.try_into().map_err(|_| LogKeyError)?;
        let key = Self::new(name, VerifyingKey::from_bytes(key).map_err(|_| LogKeyError)?)?;
        if unhex(id).as_deref() == Some(&key.id().to_be_bytes()) { Ok(key) } else { Err(LogKeyError) }
    }
}

/// Strict where the specification leaves it open: one signature for one text and key.
impl Verifier for LogKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id()
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| self.key.verify_strict(text, &s).is_ok())
    }
}

struct Known<'a>(&'a [LogKey]);

impl Verifiers for Known<'_> {
    fn verifier(&self, name: &str, id: u32) -> Result<&dyn Verifier, VerificationError> {
        let key = self.0.iter().find(|key| key.name == name && key.id() == id);
        key.map(|key| key as &dyn Verifier)
            .ok_or_else(|| VerificationError::UnknownKey { name: name.to_owned(), id })
    }
}

/// The key that signs a log's checkpoints; for nothing else.
pub struct LogSigner {
    public: LogKey,
    key: SigningKey,
}

impl LogSigner {
    /// Of the log of that name.
    pub fn new(name: &str, key: SigningKey) -> Result<Self, LogKeyError> {
        Ok(Self { public: LogKey::new(name, key.verifying_key())?, key })
    }

    /// What checkpoints are known by.
    #[must_use]
    pub const fn public(&self) -> &LogKey {
        &self.public
    }
}

/// Nothing of the secret.
impl fmt::Debug for LogSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogSigner({})", self.public)
    }
}

/// The installation's name cannot be part of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an installation's name is a host, and a path perhaps: letters, digits, `.`, `-`, `_`, `:` and `/`")]
pub struct OriginError;

/// The origin of an org's log: `<installation>/<org>`, whatever is in the org's name besides letters, digits, `-`,
/// `_` and `.` percent-encoded.
pub fn origin(installation: &str, org: &Name) -> Result<String, OriginError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:/".contains(c);
    if installation.is_empty() || !installation.chars().all(allowed) {
        return Err(OriginError);
    }
    let mut origin = format!("{installation}/");
    for byte in org.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            origin.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(origin, "%{byte:02X}");
        }
    }
    Ok(origin)
}
