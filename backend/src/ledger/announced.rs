//! A proxy announces with each heartbeat where its chain ends. An event that was lost, with the disk that it was on or
//! by somebody's hand, shows by that: something else comes in its place, or nothing.

use std::collections::HashMap;

use oakallow_policy::audit::Head;
use oakallow_policy::timestamp::{self, UnixMs};

use super::{IngestError, ProxyChain, broken, source_of};
use crate::store::{Conn, StoreError, announced, audit};

const OTHER: &str = "a heartbeat of the proxy announced another event in its place";

/// Takes in where a proxy says that its chain ends, inside the caller's transaction.
pub(crate) async fn announce(
    conn: &mut Conn,
    org: &str,
    proxy: &ProxyChain<'_>,
    (head, now): (&Head, UnixMs),
) -> Result<(), IngestError> {
    if head.seq == 0 {
        return Ok(());
    }
    let source = source_of(proxy.id);
    let stored = audit::head(conn, org, &source).await?;
    let known = if head.seq <= stored.seq {
        audit::hash_at(conn, org, &source, head.seq).await?
    } else {
        Some(announced::insert(conn, (org, &source), head, now).await?)
    };
    if known.as_deref() == Some(head.hash.as_str()) {
        return Ok(());
    }
    Err(broken(
        head.seq,
        head.hash.clone(),
        "a heartbeat says that the chain ends with another event than before",
    ))
}

/// What was announced of the places that a batch takes.
pub(super) struct Announced(HashMap<u64, String>);

impl Announced {
    pub(super) async fn up_to(
        conn: &mut Conn,
        chain: announced::Chain<'_>,
        to: u64,
    ) -> Result<Self, StoreError> {
        let heads = announced::up_to(conn, chain, to).await?;
        Ok(Self(heads.into_iter().map(|head| (head.seq, head.hash)).collect()))
    }

    /// Whether this is what was announced, if anything was.
    pub(super) fn check(&self, seq: u64, hash: &str) -> Result<(), IngestError> {
        match self.0.get(&seq) {
            Some(announced) if announced != hash => Err(broken(seq, hash.to_owned(), OTHER)),
            _ => Ok(()),
        }
    }

    /// Up to here everything has come.
    pub(super) async fn came(
        &self,
        conn: &mut Conn,
        chain: announced::Chain<'_>,
        head: &Head,
    ) -> Result<(), StoreError> {
        if self.0.is_empty() { Ok(()) } else { announced::delete_up_to(conn, chain, head.seq).await }
    }
}

/// What was announced and has not come: it waits in the proxy, or is lost.
pub(super) async fn missing(conn: &mut Conn, org: &str) -> Result<Vec<String>, StoreError> {
    let mut missing = Vec::new();
    for (source, seq, at) in announced::last(conn, org).await? {
        let stored = audit::head(conn, org, &source).await?;
        let at = timestamp::rfc3339(at);
        missing.push(format!(
            "chain `{source}` ends at event {}, and its proxy announced {seq} on {at}",
            stored.seq
        ));
    }
    Ok(missing)
}
