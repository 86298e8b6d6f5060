//! A log that is in order: two proxies and the backend, calls by rule and by approval.

use ed25519_dalek::SigningKey;
use oakallow_policy::audit::export::{EventLine, Header, Line, RemovedLine, VERSION};
use oakallow_policy::audit::leave::BACKEND;
use oakallow_policy::audit::{ApprovalRecord, Chained, DecisionRecord, Event, EventData, EventType, Head};
use oakallow_policy::merkle::{Checkpoint, Frontier, Leaf, LogSigner, SALT_BYTES, Salt};
use oakallow_policy::permit::PermitReason;
use oakallow_policy::rule::Permission;
use serde_json::value::RawValue;
use std::collections::HashMap;

pub(crate) const ORIGIN: &str = "audit.example.com/acme";

pub(crate) fn signer() -> LogSigner {
    signer_of(1)
}

pub(crate) fn signer_of(seed: u8) -> LogSigner {
    LogSigner::new(ORIGIN, SigningKey::from_bytes(&[seed; 32])).unwrap()
}

#[derive(Clone)]
pub(crate) struct Entry {
    chained: Chained,
    contents: String,
    salt: Salt,
}

impl Entry {
    fn leaf(&self) -> Leaf {
        let commitment = self.salt.commit(self.contents.as_bytes());
        Leaf { source: self.chained.source.clone(), seq: self.chained.seq, commitment }
    }

    fn line(&self, index: u64) -> Line {
        let contents = RawValue::from_string(self.contents.clone()).unwrap();
        Line::Event(EventLine {
            index,
            commitment: self.leaf().commitment,
            salt: self.salt.clone(),
            contents,
        })
    }
}

pub(crate) struct Made(Vec<Entry>);

/// What happens in a call, and who tells it.
const BY_RULE: &[(&str, EventType)] = &[
    ("", EventType::CallRequested),
    ("", EventType::CallDecided),
    ("", EventType::CallForwarded),
    ("", EventType::CallCompleted),
];
const BY_APPROVAL: &[(&str, EventType)] = &[
    ("", EventType::CallDecided),
    (BACKEND, EventType::ApprovalCreated),
    (BACKEND, EventType::ApprovalConsumed),
    ("", EventType::CallForwarded),
    ("", EventType::CallFailed),
];

fn event(call: usize, kind: EventType, approved: bool) -> Event {
    let mut data = EventData { tool: Some("pay".to_owned()), ..EventData::default() };
    let (permission, permit) = if approved {
        (Permission::RequiresApproval, PermitReason::Approval)
    } else {
        (Permission::Allowed, PermitReason::Rule)
    };
    match kind {
        EventType::CallDecided => {
            data.decision = Some(DecisionRecord {
                definition_changed: false,
                permission,
                policy_version: 3,
                resolved_from: "org_tool".to_owned(),
                rule: None,
                unregistered: false,
            });
        }
        EventType::CallForwarded => data.permit = Some(permit),
        _ => {}
    }
    if approved {
        data.approval = Some(ApprovalRecord { id: format!("apr_{call}"), ..ApprovalRecord::default() });
    }
    let (txn, time) = (Some(format!("txn_{call}")), "2026-07-25T17:20:00.007Z".to_owned());
    Event { id: String::new(), kind, time, txn, data }
}

impl Made {
    pub(crate) fn good() -> Self {
        Self::with(|_, _| {})
    }

    /// With events that were recorded otherwise, by index.
    pub(crate) fn with(mut otherwise: impl FnMut(u64, &mut Event)) -> Self {
        let mut heads: HashMap<String, Head> = HashMap::new();
        let mut entries = Vec::new();
        for call in 0..8 {
            let approved = call % 3 == 1;
            for (teller, kind) in if approved { BY_APPROVAL } else { BY_RULE } {
                let source =
                    if teller.is_empty() { format!("proxy/prx_{}", call % 2) } else { (*teller).to_owned() };
                let mut event = event(call, *kind, approved);
                event.id = format!("evt_{}", entries.len());
                otherwise(entries.len() as u64, &mut event);
                let head = heads.entry(source.clone()).or_default();
                let (chained, bytes, next) = Chained::append(&source, head, event).unwrap();
                *head = next;
                let salt = Salt([entries.len() as u8; SALT_BYTES]);
                entries.push(Entry { chained, contents: String::from_utf8(bytes).unwrap(), salt });
            }
        }
        Self(entries)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn places(&self, kind: EventType) -> Vec<u64> {
        (0..).zip(&self.0).filter(|(_, e)| e.chained.event.kind == kind).map(|(n, _)| n).collect()
    }

    pub(crate) fn txn(&self, index: u64) -> String {
        self.0[index as usize].chained.event.txn.clone().unwrap()
    }

    fn frontier(&self, size: u64) -> Frontier {
        let mut frontier = Frontier::default();
        for entry in &self.0[..size as usize] {
            frontier.append(entry.leaf().hash(), &mut Vec::new()).unwrap();
        }
        frontier
    }

    /// The checkpoint of that size.
    pub(crate) fn note(&self, size: u64) -> String {
        let root = self.frontier(size).root();
        Checkpoint { origin: ORIGIN.to_owned(), size, root }.sign(&signer())
    }

    fn head(&self, from: u64) -> Vec<Vec<u8>> {
        let header = Header {
            version: VERSION,
            origin: ORIGIN.to_owned(),
            keys: vec![signer().public().to_string()],
            from,
            frontier: self.frontier(from).subtrees().to_vec(),
        };
        let notes = [7, 16, self.len()].map(|size| Line::Checkpoint(self.note(size)));
        std::iter::once(Line::Log(header)).chain(notes).map(|line| bytes(&line)).collect()
    }

    /// Where a leaf stands in [`Self::lines`].
    pub(crate) fn line_of(&self, index: u64) -> usize {
        self.head(0).len() + index as usize
    }

    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        self.lines_from(0)
    }

    pub(crate) fn lines_from(&self, from: u64) -> Vec<Vec<u8>> {
        let leaves = (0..).zip(&self.0).skip(from as usize).map(|(n, entry)| bytes(&entry.line(n)));
        self.head(from).into_iter().chain(leaves).collect()
    }

    /// The contents before that index are gone.
    pub(crate) fn retained(&self, kept_from: u64) -> Vec<Vec<u8>> {
        let leaves = (0..).zip(&self.0).map(|(index, entry)| {
            let Leaf { source, seq, commitment } = entry.leaf();
            let removed = Line::Removed(RemovedLine { index, source, seq, commitment });
            bytes(&if index < kept_from { removed } else { entry.line(index) })
        });
        self.head(0).into_iter().chain(leaves).collect()
    }

    /// Entries changed by somebody who numbers the lines anew and cannot sign.
    pub(crate) fn renumbered(&self, change: impl FnOnce(&mut Vec<Entry>)) -> Vec<Vec<u8>> {
        let mut entries = self.0.clone();
        change(&mut entries);
        let leaves = (0..).zip(&entries).map(|(n, entry)| bytes(&entry.line(n)));
        self.head(0).into_iter().chain(leaves).collect()
    }
}

fn bytes(line: &Line) -> Vec<u8> {
    line.write().unwrap().into_bytes()
}
