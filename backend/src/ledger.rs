//! The ledger: takes proxies' chains in, and checks that the whole record is sound.
//!
//! In: a batch continues the proxy's chain where the stored one ends, under a head that the proxy
//! signed. What was sent before is skipped when it is the same to the byte. Anything else is refused and
//! recorded, never repaired. So is a chain that is not the one which its proxy announced.
//!
//! Out of scope: the Merkle log over all chains, and checkpoints.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt as _;
use oakallow_policy::audit::{Chained, EventData, EventType, Head};
use oakallow_policy::canonical;
use oakallow_policy::id::Name;
use oakallow_policy::permit::PermitReason;
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp::{self, UnixMs};
use oakallow_policy::token::SKEW_S;
use oakallow_policy::wire::{AuditBatch, PublicKey, Purpose};
use serde::Serialize;

use crate::config::Database;
use crate::store::audit::{self, Sealed};
use crate::store::proxies::Proxy;
use crate::store::{self, Conn, Db, StoreError};
use announced::Announced;
pub(crate) use announced::announce;

mod announced;

/// The chain of a proxy.
#[must_use]
pub(crate) fn source_of(proxy_id: &str) -> String {
    format!("proxy/{proxy_id}")
}

/// Why a batch is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// The head is not signed by the proxy's key.
    #[error("the head of the batch is not signed with this proxy's key")]
    Signature,
    /// The batch begins after the stored chain ends.
    #[error("expected event {expected}, found {found}: send the events from there on")]
    Gap {
        /// The number that comes next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// Two different events claim one place, or an event does not continue the one before.
    #[error("event {seq} contradicts the chain that is stored: {why}")]
    Broken {
        /// Where.
        seq: u64,
        /// Hash of the event that was refused, hex.
        hash: String,
        /// How.
        why: String,
    },
    /// The signed head is not the end of the batch.
    #[error("the signed head is not where the events of the batch end")]
    Head,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes a batch in, inside the caller's transaction, and returns the number up to which everything is
/// stored. Repeating it changes nothing.
pub(crate) async fn ingest(
    conn: &mut Conn,
    org: &str,
    proxy: &ProxyChain<'_>,
    batch: &AuditBatch,
    now: UnixMs,
) -> Result<u64, IngestError> {
    // A proxy has one key; what it calls it does not matter.
    let key = PublicKey { kid: batch.head.kid.clone(), public_key: proxy.public_key.to_owned() };
    let signed: Head = batch.head.open(Purpose::Head, &key).map_err(|_| IngestError::Signature)?;
    let source = source_of(proxy.id);
    let stored = audit::head(conn, org, &source).await?;
    let announced = Announced::up_to(conn, (org, &source), signed.seq).await?;
    let mut head = stored.clone();
    let mut end = None;
    for chained in &batch.events {
        let Some(bytes) = canonical::json_bytes(chained).ok() else {
            return Err(broken(chained.seq, String::new(), "it has no canonical form"));
        };
        let hash = audit::hash_of(&bytes);
        if chained.seq <= stored.seq {
            let known = audit::hash_at(conn, org, &source, chained.seq).await?;
            if known.as_deref() != Some(hash.as_str()) {
                return Err(broken(chained.seq, hash, "another event is stored in its place"));
            }
            end = Some(Head { seq: chained.seq, hash });
            continue;
        }
        if chained.seq > head.seq + 1 {
            return Err(IngestError::Gap { expected: head.seq + 1, found: chained.seq });
        }
        head =
            chained.follow(&source, &head).map_err(|e| broken(chained.seq, hash.clone(), &e.to_string()))?;
        announced.check(chained.seq, &hash)?;
        if audit::exists(conn, org, &chained.event.id).await? {
            return Err(broken(chained.seq, hash, "its id is taken by another event"));
        }
        if timestamp::parse_rfc3339(&chained.event.time).is_none() {
            return Err(broken(chained.seq, hash, "its time is not an RFC 3339 time"));
        }
        audit::insert(conn, org, now, &Sealed { chained, bytes: &bytes, hash: &hash }).await?;
        end = Some(head.clone());
    }
    if signed != end.unwrap_or_else(|| stored.clone()) {
        return Err(IngestError::Head);
    }
    announced.came(conn, (org, &source), &head).await?;
    Ok(head.seq)
}

/// Whose chain a batch continues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProxyChain<'a> {
    /// `prx_…`
    pub(crate) id: &'a str,
    /// Its Ed25519 key, base64url, as registered.
    pub(crate) public_key: &'a str,
}

fn broken(seq: u64, hash: String, why: &str) -> IngestError {
    IngestError::Broken { seq, hash, why: why.to_owned() }
}

/// What a check of the whole record found.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Events that were looked at.
    pub events: u64,
    /// Chains, with their length.
    pub chains: BTreeMap<String, u64>,
    /// Calls that were forwarded.
    pub forwarded: u64,
    /// Forwarded calls without a recorded outcome: in flight, or their proxy died and has not come back.
    pub open: Vec<String>,
    /// Tokens that were redeemed before the event of their call has arrived: a proxy's chain may be behind.
    pub unshipped: Vec<String>,
    /// Ends of chains that proxies announced and whose events are not here: they wait in the proxy, or are lost.
    pub missing: Vec<String>,
    /// What is wrong. Empty: the record is whole, and nothing was forwarded without leave.
    pub violations: Vec<String>,
}

impl Verified {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Why a record could not be checked: says nothing about the record.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database cannot be read.
    #[error("the database in {0}: {1}")]
    Database(PathBuf, String),
    /// There is no such org.
    #[error("org `{0}` has no audit events here")]
    Empty(String),
}

/// Checks the record of an org in a data directory, whether or not a backend runs on it. Reads only.
pub async fn verify(data_dir: &Path, org: &str) -> Result<Verified, VerifyError> {
    verify_in(data_dir, &Database::DataDir, org).await
}

/// [`verify`], of either database.
pub async fn verify_in(data_dir: &Path, database: &Database, org: &str) -> Result<Verified, VerifyError> {
    let unreadable = |e: &dyn std::fmt::Display| VerifyError::Database(data_dir.to_owned(), e.to_string());
    // One moment of it, however long the check takes.
    let mut db = Db::look(data_dir, database, org).await.map_err(|e| unreadable(&e))?;
    let found = check(&mut db, org).await.map_err(|e| unreadable(&e))?;
    if found.events == 0 {
        return Err(VerifyError::Empty(org.to_owned()));
    }
    Ok(found)
}

/// Checks every chain of an org from its first event to its head, that none was told differently to the
/// backend, that every `call.forwarded` has a decision that allows it, by the reason of its permit, and that
/// every redeemed token was recorded by who signed it.
async fn check(conn: &mut Conn, org: &str) -> Result<Verified, StoreError> {
    let mut checked = Check::default();
    {
        let mut events = audit::stream(conn, audit::chains(org));
        while let Some(event) = events.try_next().await? {
            checked.event(&event.body, &event.hash);
        }
    }
    for (source, head) in &checked.heads {
        let stored = audit::head(conn, org, source).await?;
        if stored != *head {
            checked
                .found
                .violations
                .push(format!("chain `{source}` ends at event {}, its head says {}", head.seq, stored.seq));
        }
    }
    checked.found.missing = announced::missing(conn, org).await?;
    if let Ok(org) = Name::new(org) {
        let proxies = store::page::<Proxy>(conn, &org, "", u32::MAX).await?;
        checked.redemptions(&proxies);
    }
    Ok(checked.finish())
}

/// A token that a tool server accepted.
struct Redeemed {
    token: String,
    audience: String,
    tenant: Option<String>,
    at: UnixMs,
}

#[derive(Default)]
struct Check {
    found: Verified,
    heads: HashMap<String, Head>,
    /// The newest decision by chain and txn: the forwarding proxy's own counts, and the last one before
    /// the intent, since a call is decided again when it is released.
    decisions: HashMap<(String, String), Permission>,
    /// (approval, txn); told by the backend only.
    consumed: HashSet<(String, String)>,
    forwarded: Vec<(Chained, Option<Permission>)>,
    used: HashSet<(String, String)>,
    finished: HashSet<String>,
    /// Tokens that are recorded by who signed them: minted here, or with the intent of a proxy's call.
    signed: HashSet<String>,
    redeemed: Vec<Redeemed>,
    /// Time of the newest event of each chain.
    newest: HashMap<String, UnixMs>,
}

impl Check {
    fn event(&mut self, body: &str, hash: &str) {
        self.found.events += 1;
        if audit::hash_of(body.as_bytes()) != hash {
            self.found.violations.push(format!("an event's body is not the one that was hashed ({hash})"));
        }
        let chained: Chained = match serde_json::from_str(body) {
            Ok(chained) => chained,
            Err(e) => return self.found.violations.push(format!("an event cannot be read: {e}")),
        };
        let head = self.heads.entry(chained.source.clone()).or_default();
        match chained.follow(&chained.source, head) {
            Ok(next) => *head = next,
            Err(e) => {
                self.found.violations.push(format!("chain `{}`: {e}", chained.source));
                *head = Head { seq: chained.seq, hash: hash.to_owned() };
            }
        }
        self.note(chained);
    }

    fn note(&mut self, chained: Chained) {
        self.note_token(&chained);
        let told_here = chained.source == audit::BACKEND;
        if told_here && chained.event.kind == EventType::ProxyChainBroken {
            self.found.violations.push(breach(&chained));
        }
        let Some(txn) = chained.event.txn.clone() else { return };
        let place = (chained.source.clone(), txn.clone());
        match chained.event.kind {
            EventType::CallDecided => {
                if let Some(decision) = &chained.event.data.decision {
                    self.decisions.insert(place, decision.permission);
                }
            }
            EventType::ApprovalConsumed if told_here => {
                if let Some(approval) = &chained.event.data.approval {
                    self.consumed.insert((approval.id.clone(), txn));
                }
            }
            EventType::CallForwarded => {
                let decision = self.decisions.get(&place).copied();
                self.forwarded.push((chained, decision));
            }
            EventType::CallCompleted
            | EventType::CallFailed
            | EventType::CallUnknown
            | EventType::CallNotForwarded => drop(self.finished.insert(txn)),
            _ => {}
        }
    }

    fn note_token(&mut self, chained: &Chained) {
        let (event, told_here) = (&chained.event, chained.source == audit::BACKEND);
        let at = timestamp::parse_rfc3339(&event.time).unwrap_or_default();
        let newest = self.newest.entry(chained.source.clone()).or_default();
        *newest = at.max(*newest);
        let Some(token) = event.data.token_id.clone() else { return };
        match event.kind {
            EventType::TokenMinted if told_here => drop(self.signed.insert(token)),
            EventType::CallForwarded => drop(self.signed.insert(token)),
            EventType::TokenRedeemed if told_here => self.redeemed.push(Redeemed {
                token,
                audience: event.data.audience.clone().unwrap_or_default(),
                tenant: event.data.tenant.clone(),
                at,
            }),
            _ => {}
        }
    }

    /// A token that nobody recorded is a violation, unless a proxy that could have signed it has not shipped
    /// what it recorded by then.
    fn redemptions(&mut self, proxies: &[Proxy]) {
        for redeemed in self.redeemed.iter().filter(|r| !self.signed.contains(&r.token)) {
            let token = redeemed.token.clone();
            if proxies.iter().any(|proxy| self.may_hold(proxy, redeemed)) {
                self.found.unshipped.push(token);
            } else {
                let text =
                    format!("token {token} was redeemed, and neither minted here nor recorded by a proxy");
                self.found.violations.push(text);
            }
        }
    }

    /// Whether the event of this token's call may be in the proxy's spool. An intent is recorded before its
    /// token is out, so it is not, once the stored chain reaches past the redemption.
    fn may_hold(&self, proxy: &Proxy, redeemed: &Redeemed) -> bool {
        let serves = proxy.serves_audience(&redeemed.audience)
            && proxy.serves_tenant(redeemed.tenant.as_deref())
            // It ships nothing any more.
            && proxy.revoked_at.is_none();
        let source = source_of(&proxy.id);
        let past = redeemed.at + SKEW_S * 1_000;
        let stored = self.heads.get(&source).map_or(0, |head| head.seq);
        let told = self.newest.get(&source).is_some_and(|at| *at > past);
        let beaten = proxy.beat.as_ref().is_some_and(|b| b.seen_at > past && b.head_seq <= stored);
        serves && !told && !beaten
    }

    fn finish(mut self) -> Verified {
        self.found.forwarded = self.forwarded.len() as u64;
        for (chained, decision) in &self.forwarded {
            let txn = chained.event.txn.clone().unwrap_or_default();
            let data = &chained.event.data;
            let approval = data.approval.as_ref().map(|a| a.id.clone()).unwrap_or_default();
            let covered = match data.permit {
                Some(PermitReason::Rule) => *decision == Some(Permission::Allowed),
                Some(PermitReason::Approval) => {
                    let consumption = (approval, txn.clone());
                    *decision == Some(Permission::RequiresApproval)
                        && self.consumed.contains(&consumption)
                        // Good for one intent.
                        && self.used.insert(consumption)
                }
                // Plumbing of a protocol names no tool and carries no token; what does is a call.
                Some(PermitReason::Passthrough) => data.tool.is_none() && data.token_id.is_none(),
                // Nothing issues grants or shadow permits.
                Some(PermitReason::Grant | PermitReason::Shadow) | None => false,
            };
            if !covered {
                self.found.violations.push(format!(
                    "{txn} was forwarded (event {} of `{}`) without a decision that allows it",
                    chained.seq, chained.source
                ));
            }
            if !self.finished.contains(&txn) {
                self.found.open.push(txn);
            }
        }
        self.found.chains = self.heads.into_iter().map(|(source, head)| (source, head.seq)).collect();
        self.found
    }
}

fn breach(chained: &Chained) -> String {
    let EventData { principal, detail, reason, .. } = &chained.event.data;
    format!(
        "proxy `{}` sent an event {} that contradicts its chain, on {}: {}",
        principal.as_deref().unwrap_or_default(),
        detail.get("seq").cloned().unwrap_or_default(),
        chained.event.time,
        reason.as_deref().unwrap_or("no reason is recorded"),
    )
}
