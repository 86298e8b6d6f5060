//! The vault: every secret that the backend must be able to read again, sealed at rest.
//!
//! One key-encryption key, in a file beside the database, seals the org's master secrets and the exact
//! arguments of approvals (XChaCha20-Poly1305; the associated data names the org and the purpose, so a
//! sealed value moved to another row does not open). A stolen database alone opens nothing.
//!
//! Out of scope: a KMS in place of the file, and secrets that need no reading again (keys, join tokens,
//! sessions), which are stored as hashes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::SigningKey;
use oakallow_policy::canonical;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::token::{LIFETIME_S_MAX, SKEW_S, TokenKey};
use zeroize::Zeroizing;

use crate::clock::Random;
use crate::store::{Conn, signed, sql, unsigned};

/// The file with the key-encryption key, in the data directory.
pub(crate) const KEY_FILE: &str = "key-encryption-key";
const NONCE_BYTES: usize = 24;
/// A token of the epoch before can live no longer than this.
const OVERLAP_MS: u64 = (LIFETIME_S_MAX + SKEW_S) * 1_000;

/// Why the vault does not open, or does not give.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    #[error("the key file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the key file {0} does not hold 32 bytes")]
    KeyLength(PathBuf),
    #[error("the key file {0} can be read by others than its owner: chmod 600 it")]
    KeyMode(PathBuf),
    #[error("a sealed secret does not open: it was changed, moved, or sealed with another key file")]
    Sealed,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What a master secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    /// Execution token keys are derived from it.
    TokenMaster,
    /// Seed of the Ed25519 key that signs bundles.
    BundleSeed,
    /// Seals the exact arguments of approvals.
    Arguments,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::TokenMaster => "token-master",
            Self::BundleSeed => "bundle-seed",
            Self::Arguments => "arguments",
        }
    }
}

type Key = Arc<Zeroizing<[u8; 32]>>;

/// See the module's documentation.
pub(crate) struct Vault {
    key: Zeroizing<[u8; 32]>,
    random: Random,
    opened: Mutex<HashMap<(String, Purpose), Key>>,
}

/// The key that signs an org's bundles, with its name.
pub(crate) struct BundleKey {
    /// Derived from the public key, so that two keys never share a name.
    pub(crate) kid: String,
    /// The key.
    pub(crate) key: SigningKey,
}

impl Vault {
    /// Opens the vault of a key file; makes it at the first start.
    pub(crate) fn open(path: &Path, random: Random) -> Result<Self, VaultError> {
        let key = match read_key(path)? {
            Some(key) => key,
            None => {
                make_key(path, random)?;
                read_key(path)?.ok_or_else(|| VaultError::KeyLength(path.to_owned()))?
            }
        };
        Ok(Self { key, random, opened: Mutex::default() })
    }

    /// Names the key-encryption key without telling anything of it: it is 256 random bits.
    pub(crate) fn fingerprint(&self) -> String {
        canonical::hex(&canonical::sha256(
            &[b"oakallow/key-file/v1|".as_slice(), self.key.as_slice()].concat(),
        ))
    }

    /// Makes all master secrets of a new org, so that later requests only read them.
    pub(crate) async fn provision(&self, conn: &mut Conn, org: &str) -> Result<(), VaultError> {
        for purpose in [Purpose::TokenMaster, Purpose::BundleSeed, Purpose::Arguments] {
            self.secret(conn, org, purpose).await?;
        }
        Ok(())
    }

    /// The key that signs the org's bundles and checkpoints.
    pub(crate) async fn bundle_key(&self, conn: &mut Conn, org: &str) -> Result<BundleKey, VaultError> {
        let seed = self.secret(conn, org, Purpose::BundleSeed).await?;
        let key = SigningKey::from_bytes(&seed);
        let digest = canonical::hex(&canonical::sha256(key.verifying_key().as_bytes()));
        Ok(BundleKey { kid: format!("bundle-{}", digest.get(..16).unwrap_or(&digest)), key })
    }

    /// The keys of an audience's execution tokens: the current one, then the one before while tokens of
    /// it may still live.
    pub(crate) async fn token_keys(
        &self,
        conn: &mut Conn,
        org: &str,
        audience: &str,
        now: UnixMs,
    ) -> Result<Vec<TokenKey>, VaultError> {
        let master = self.secret(conn, org, Purpose::TokenMaster).await?;
        let (epoch, overlap_until) = epoch(conn, org).await?;
        let mut keys = vec![TokenKey::derive(&master, epoch, audience)];
        if epoch > 1 && now < overlap_until {
            keys.push(TokenKey::derive(&master, epoch - 1, audience));
        }
        Ok(keys)
    }

    /// Starts a new epoch: every audience of the org gets a new key, and the old one is accepted for as
    /// long as a token of it may live. The caller announces a new policy version, which brings the keys
    /// to the proxies.
    pub(crate) async fn rotate_token_keys(
        &self,
        conn: &mut Conn,
        org: &str,
        now: UnixMs,
    ) -> Result<u32, VaultError> {
        sql::query(
            "INSERT INTO token_epochs (org, epoch, overlap_until_ms) VALUES (?1, 2, ?2) \
             ON CONFLICT (org) DO UPDATE SET epoch = token_epochs.epoch + 1, overlap_until_ms = ?2",
        )
        .bind(org)
        .bind(signed(now + OVERLAP_MS))
        .execute(&mut *conn)
        .await?;
        Ok(epoch(conn, org).await?.0)
    }

    /// Seals the exact arguments of an approval.
    pub(crate) async fn seal_arguments(
        &self,
        conn: &mut Conn,
        org: &str,
        approval: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        let key = self.secret(conn, org, Purpose::Arguments).await?;
        self.seal(&key, &format!("{org}|arguments|{approval}"), plain)
    }

    /// Opens what [`Vault::seal_arguments`] sealed for this very approval.
    pub(crate) async fn open_arguments(
        &self,
        conn: &mut Conn,
        org: &str,
        approval: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let key = self.secret(conn, org, Purpose::Arguments).await?;
        open(&key, &format!("{org}|arguments|{approval}"), sealed)
    }

    /// A master secret; made when it is first asked for. Of two that make it at once one wins, and both
    /// use the winner's.
    async fn secret(&self, conn: &mut Conn, org: &str, purpose: Purpose) -> Result<Key, VaultError> {
        let slot = (org.to_owned(), purpose);
        if let Some(key) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&slot) {
            return Ok(Arc::clone(key));
        }
        let aad = format!("{org}|{}", purpose.as_str());
        let sealed = match stored(conn, org, purpose).await? {
            Some(sealed) => sealed,
            None => {
                let fresh = Zeroizing::new(self.random.bytes32());
                let sealed = self.seal(&self.key, &aad, fresh.as_slice())?;
                sql::query(
                    "INSERT INTO secrets (org, purpose, sealed) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                )
                .bind(org)
                .bind(purpose.as_str())
                .bind(sealed)
                .execute(conn)
                .await?;
                // Not remembered yet: the caller's transaction may roll back.
                let sealed = stored(conn, org, purpose).await?.ok_or(VaultError::Sealed)?;
                return thirty_two(&open(&self.key, &aad, &sealed)?).map(Arc::new);
            }
        };
        let key: Key = Arc::new(thirty_two(&open(&self.key, &aad, &sealed)?)?);
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, Arc::clone(&key));
        Ok(key)
    }

    fn seal(&self, key: &[u8; 32], aad: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let nonce: [u8; NONCE_BYTES] = self.random.bytes();
        let cipher = XChaCha20Poly1305::new(key.into());
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: aad.as_bytes() })
            .map_err(|_| VaultError::Sealed)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

fn open(key: &[u8; 32], aad: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Sealed)?;
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: aad.as_bytes() })
        .map(Zeroizing::new)
        .map_err(|_| VaultError::Sealed)
}

fn thirty_two(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    bytes.try_into().map(Zeroizing::new).map_err(|_| VaultError::Sealed)
}

async fn stored(conn: &mut Conn, org: &str, purpose: Purpose) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sql::query_scalar("SELECT sealed FROM secrets WHERE org = ? AND purpose = ?")
        .bind(org)
        .bind(purpose.as_str())
        .fetch_optional(conn)
        .await
}

/// The current epoch (1 until the first rotation), and until when the one before is accepted.
async fn epoch(conn: &mut Conn, org: &str) -> Result<(u32, UnixMs), sqlx::Error> {
    let row: Option<(i64, i64)> =
        sql::query_as("SELECT epoch, overlap_until_ms FROM token_epochs WHERE org = ?")
            .bind(org)
            .fetch_optional(conn)
            .await?;
    let Some((epoch, overlap_until)) = row else { return Ok((1, 0)) };
    let epoch = u32::try_from(epoch).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok((epoch, unsigned(overlap_until)))
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, VaultError> {
    let at = |source| VaultError::File { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(e)),
    };
    refuse_shared(&file, path)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(33));
    (&mut file).take(33).read_to_end(&mut bytes).map_err(at)?;
    let key = bytes.as_slice().try_into().map_err(|_| VaultError::KeyLength(path.to_owned()))?;
    Ok(Some(Zeroizing::new(key)))
}

#[cfg(unix)]
fn refuse_shared(file: &File, path: &Path) -> Result<(), VaultError> {
    use std::os::unix::fs::PermissionsExt as _;
    let at = |source| VaultError::File { path: path.to_owned(), source };
    let mode = file.metadata().map_err(at)?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(VaultError::KeyMode(path.to_owned())) }
}

#[cfg(not(unix))]
fn refuse_shared(_: &File, _: &Path) -> Result<(), VaultError> {
    Ok(())
}

/// Writes a new key beside its place and links it there, so that the file is whole or absent, and of
/// two first starts one wins.
fn make_key(path: &Path, random: Random) -> Result<(), VaultError> {
    let at = |source| VaultError::File { path: path.to_owned(), source };
    let part = path.with_extension(format!("{}.part", canonical::hex(&random.bytes::<8>())));
    let key = Zeroizing::new(random.bytes32());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part).map_err(at)?;
    let written = file.write_all(key.as_slice()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| match std::fs::hard_link(&part, path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = std::fs::remove_file(&part);
    linked.and(removed).map_err(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Db;

    #[tokio::test]
    async fn sealed_arguments_open_in_their_own_place_only() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join(KEY_FILE), Random).unwrap();
        let mut db = Db::for_test(dir.path()).await.begin("demo").await.unwrap();
        let sealed = vault.seal_arguments(&mut db, "demo", "apr_1", b"{}").await.unwrap();
        assert_eq!(*vault.open_arguments(&mut db, "demo", "apr_1", &sealed).await.unwrap(), b"{}");
        for (org, approval) in [("demo", "apr_2"), ("other", "apr_1")] {
            assert!(vault.open_arguments(&mut db, org, approval, &sealed).await.is_err());
        }
        let mut altered = sealed;
        if let Some(last) = altered.last_mut() {
            *last ^= 1;
        }
        assert!(vault.open_arguments(&mut db, "demo", "apr_1", &altered).await.is_err());
    }

    #[tokio::test]
    async fn masters_survive_a_restart_and_not_another_key_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::for_test(dir.path()).await.begin("demo").await.unwrap();
        let first = Vault::open(&dir.path().join(KEY_FILE), Random)
            .unwrap()
            .bundle_key(&mut db, "demo")
            .await
            .unwrap();
        let again = Vault::open(&dir.path().join(KEY_FILE), Random)
            .unwrap()
            .bundle_key(&mut db, "demo")
            .await
            .unwrap();
        assert_eq!((first.kid, first.key.to_bytes()), (again.kid, again.key.to_bytes()));
        std::fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        let stranger = Vault::open(&dir.path().join(KEY_FILE), Random).unwrap();
        assert!(matches!(stranger.bundle_key(&mut db, "demo").await, Err(VaultError::Sealed)));
    }
}
