//! Checks an export offline: that every line is what was logged, that none is missing or in another place, that the
//! signed checkpoints are of this log, that each chain is whole, and that no call was forwarded without leave.
//!
//! A finding names its cause. What only follows from it (a root that cannot fit after a leaf was lost, a chain that
//! does not continue a changed event) is not reported again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use serde::Serialize;

use super::export::{EventLine, Header, Line, RemovedLine, VERSION};
use super::leave::{BACKEND, Leave};
use super::{Chained, Head};
use crate::canonical::{hex, sha256};
use crate::merkle::{Checkpoint, Frontier, Hash, Leaf, LogKey};
use order::{Order, Place};

mod order;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "finding", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Finding {
    #[error("line {line} was changed: it is not what was logged")]
    Changed { line: u64 },
    #[error("leaves {from} to {to} (not included) are missing")]
    Missing { from: u64, to: u64 },
    #[error("events {from} to {to} (not included) of chain `{source_of}` are missing")]
    MissingInChain { source_of: String, from: u64, to: u64 },
    #[error("line {line} is not in its place: it is leaf {index}")]
    Reordered { line: u64, index: u64 },
    #[error("line {line} is not in its place: it is event {seq} of chain `{source_of}`")]
    ReorderedInChain { line: u64, source_of: String, seq: u64 },
    #[error("line {line}: event {seq} of chain `{source_of}` does not continue the one before")]
    BrokenChain { line: u64, source_of: String, seq: u64 },
    #[error("the checkpoint {place} is not one of this log: {why}")]
    BadCheckpoint { place: String, why: String },
    #[error("the log was forked, or this is another: the signed checkpoint of {size} leaves is not of these")]
    Forked { size: u64 },
    #[error("{txn} was forwarded (event {seq} of `{source_of}`) without a decision that allows it")]
    NoDecision { source_of: String, seq: u64, txn: String },
    #[error("no signed checkpoint vouches for any of it")]
    Unvouched,
}

/// What a check of an export found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The log.
    pub origin: String,
    /// Whether its keys were given by whoever checks; otherwise they are those that the export names.
    pub pinned: bool,
    /// Index of the first leaf.
    pub from: u64,
    /// Leaves that were looked at.
    pub leaves: u64,
    /// Those of which the contents are gone.
    pub removed: u64,
    /// Size of the largest checkpoint that is of these leaves: nothing vouches for what comes after.
    pub vouched: u64,
    /// Checkpoints of before the export begins: not looked at.
    pub earlier_checkpoints: u64,
    /// Chains, with the number of their last event.
    pub chains: BTreeMap<String, u64>,
    /// Calls that were forwarded.
    pub forwarded: u64,
    /// Those without a recorded end.
    pub open: Vec<String>,
    /// Those of which nothing here shows that they were allowed, where what would show it may be gone or earlier.
    pub unjudged: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What whoever checks brings along.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    /// Keys of the log; when there are none, those in the export are believed.
    pub keys: Vec<LogKey>,
    /// Checkpoints that were kept from earlier: the log has to go on from them.
    pub checkpoints: Vec<String>,
}

/// Checks the lines of an export, without their newlines.
pub fn verify(lines: impl IntoIterator<Item = Vec<u8>>, trusted: &Trusted) -> Report {
    let mut lines = (1_u64..).zip(lines).map(|(number, bytes)| (number, Line::read(&bytes))).peekable();
    let Some((_, Some(Line::Log(header)))) = lines.next() else { return unreadable() };
    let Some(mut check) = Check::begin(header, trusted) else { return unreadable() };
    for (n, note) in (1..).zip(&trusted.checkpoints) {
        check.checkpoint(format!("number {n} of those that were given"), note);
    }
    while let Some((number, line)) = lines.next() {
        let next = lines.peek().map(|(_, line)| line.as_ref().and_then(Line::index));
        check.line(number, line, next);
    }
    check.finish()
}

/// Without its header nothing of an export can be judged.
fn unreadable() -> Report {
    Report { findings: vec![Finding::Changed { line: 1 }], ..Report::default() }
}

struct Check {
    report: Report,
    keys: Vec<LogKey>,
    /// Signed roots that no leaf has been compared with yet, by size.
    signed: BTreeMap<u64, Hash>,
    newest: u64,
    order: Order,
    /// `None` once a leaf was lost or came in another place: no root can be worked out from then on.
    tree: Option<Frontier>,
    chains: HashMap<String, Chain>,
    /// How often leaves were lost or changed: chains that were last seen before go on from wherever they are.
    breaks: u64,
    leave: Leave,
    removed: HashSet<String>,
}

struct Chain {
    order: Order,
    /// Hash of the last event; `None` when its contents are gone.
    hash: Option<String>,
    breaks: u64,
}

impl Check {
    fn begin(header: Header, trusted: &Trusted) -> Option<Self> {
        let Header { version, origin, keys, from, frontier } = header;
        let named = keys.iter().map(|key| key.parse()).collect::<Result<Vec<LogKey>, _>>().ok()?;
        let tree = Frontier::restore(from, frontier).ok()?;
        if version != VERSION || named.iter().any(|key| key.name() != origin) {
            return None;
        }
        let pinned = !trusted.keys.is_empty();
        let mut check = Self {
            report: Report { origin, pinned, from, ..Report::default() },
            keys: if pinned { trusted.keys.clone() } else { named },
            signed: BTreeMap::new(),
            newest: 0,
            order: Order::from(from),
            tree: Some(tree),
            chains: HashMap::new(),
            breaks: 0,
            leave: Leave::default(),
            removed: HashSet::new(),
        };
        check.keys.retain(|key| key.name() == check.report.origin);
        Some(check)
    }

    fn line(&mut self, number: u64, line: Option<Line>, next: Option<Option<u64>>) {
        match line {
            Some(Line::Checkpoint(note)) if self.report.leaves == 0 => {
                self.checkpoint(format!("in line {number}"), &note);
            }
            Some(Line::Event(line)) => self.event(number, &line, next),
            Some(Line::Removed(line)) => self.gone(number, &line, next),
            // Unreadable, or what does not stand there: in place of a leaf, once there were some.
            _ => {
                self.find(Finding::Changed { line: number });
                if next.flatten() == Some(self.order.next() + 1) || self.report.leaves > 0 {
                    self.order.take(self.order.next());
                    self.report.leaves += 1;
                    self.lose();
                }
            }
        }
    }

    fn checkpoint(&mut self, place: String, note: &str) {
        let opened = Checkpoint::open(note, &self.keys).map_err(|e| e.to_string());
        let Checkpoint { size, root, .. } = match opened {
            Ok(checkpoint) => checkpoint,
            Err(why) => return self.find(Finding::BadCheckpoint { place, why }),
        };
        self.newest = self.newest.max(size);
        if size < self.report.from {
            self.report.earlier_checkpoints += 1;
        } else if self.signed.get(&size).is_some_and(|other| *other != root) {
            self.find(Finding::Forked { size });
        } else {
            self.signed.insert(size, root);
            self.compare();
        }
    }

    /// Whether the leaves so far are those that were signed, if so many were.
    fn compare(&mut self) {
        let Some(tree) = &self.tree else { return };
        let (size, root) = (tree.size(), tree.root());
        match self.signed.get(&size) {
            Some(signed) if *signed == root => self.report.vouched = self.report.vouched.max(size),
            Some(_) if self.breaks == 0 => self.find(Finding::Forked { size }),
            _ => {}
        }
    }

    fn event(&mut self, number: u64, line: &EventLine, next: Option<Option<u64>>) {
        let contents = line.contents.get().as_bytes();
        let read = serde_json::from_slice::<Chained>(contents).ok();
        let canonical = read.filter(|chained| chained.bytes().is_ok_and(|bytes| bytes == contents));
        let in_place = self.place(number, line.index, next);
        let good = canonical.filter(|_| line.salt.commit(contents) == line.commitment);
        let Some(chained) = good else {
            self.find(Finding::Changed { line: number });
            self.lose();
            return;
        };
        if in_place {
            let leaf = Leaf { source: chained.source.clone(), seq: chained.seq, commitment: line.commitment };
            self.grow(&leaf);
            self.chain(number, &leaf, Some((&chained.prev, hex(&sha256(contents)))));
        }
        self.leave.note(&chained);
    }

    fn gone(&mut self, number: u64, line: &RemovedLine, next: Option<Option<u64>>) {
        self.report.removed += 1;
        self.removed.insert(line.source.clone());
        if self.place(number, line.index, next) {
            self.grow(&line.leaf());
            self.chain(number, &line.leaf(), None);
        }
    }

    /// Takes the leaf's index; whether its line stands where it should.
    fn place(&mut self, number: u64, index: u64, next: Option<Option<u64>>) -> bool {
        self.report.leaves += 1;
        let expected = self.order.next();
        // The line after it says that only the number is wrong; after the last one, the newest checkpoint does.
        let after = expected.saturating_add(1);
        let alone = next.map_or(self.newest == after, |next| next == Some(after));
        if index != expected && alone {
            self.order.take(expected);
            self.find(Finding::Changed { line: number });
            return true;
        }
        match self.order.take(index) {
            Place::Next => true,
            Place::Ahead => {
                self.lose();
                true
            }
            Place::Late | Place::Again => {
                self.find(Finding::Reordered { line: number, index });
                self.lose();
                false
            }
        }
    }

    fn grow(&mut self, leaf: &Leaf) {
        let Some(tree) = &mut self.tree else { return };
        if tree.append(leaf.hash(), &mut Vec::new()).is_err() {
            self.tree = None;
        }
        self.compare();
    }

    /// From here on no root is known, and chains have to be taken up anew.
    fn lose(&mut self) {
        self.tree = None;
        self.breaks += 1;
    }

    /// Whether a leaf continues its chain; `links`: the hash that it names, and its own.
    fn chain(&mut self, number: u64, leaf: &Leaf, links: Option<(&str, String)>) {
        let (breaks, start) = (self.breaks, self.report.from == 0);
        let chain = self.chains.entry(leaf.source.clone()).or_insert_with(|| Chain {
            order: Order::from(if start { 1 } else { leaf.seq }),
            hash: start.then(|| Head::default().hash),
            breaks: 0,
        });
        let loose = std::mem::replace(&mut chain.breaks, breaks) != breaks;
        let before = chain.hash.take();
        let (prev, own) = links.map_or((None, None), |(prev, own)| (Some(prev), Some(own)));
        chain.hash = own;
        let (source_of, seq) = (leaf.source.clone(), leaf.seq);
        if loose {
            chain.order.jump(seq);
            return;
        }
        match chain.order.take(seq) {
            Place::Next if prev.zip(before.as_deref()).is_none_or(|(prev, before)| prev == before) => {}
            // Told at the end, unless it comes later.
            Place::Ahead => {}
            Place::Next | Place::Again => {
                self.find(Finding::BrokenChain { line: number, source_of, seq });
            }
            Place::Late => self.find(Finding::ReorderedInChain { line: number, source_of, seq }),
        }
    }

    fn finish(mut self) -> Report {
        self.lost();
        let judged = std::mem::take(&mut self.leave).judge();
        self.report.forwarded = judged.forwarded;
        self.report.open = judged.open;
        for forward in judged.without {
            let sources = [forward.source.as_str(), BACKEND];
            let partial = self.report.from > 0
                || self.breaks > 0
                || sources.iter().any(|source| self.removed.contains(*source));
            if partial {
                self.report.unjudged.push(forward.txn);
            } else {
                let (source_of, seq, txn) = (forward.source, forward.seq, forward.txn);
                self.find(Finding::NoDecision { source_of, seq, txn });
            }
        }
        if self.report.vouched == 0 && self.report.is_sound() {
            self.find(Finding::Unvouched);
        }
        self.report.chains =
            self.chains.into_iter().map(|(source, chain)| (source, chain.order.next() - 1)).collect();
        self.report
    }

    /// What did not come: leaves before others, leaves that were signed, events of chains.
    fn lost(&mut self) {
        let end = self.order.next();
        let mut leaves: Vec<Range<u64>> = self.order.missing().collect();
        if end < self.newest {
            leaves.push(end..self.newest);
        }
        for Range { start: from, end: to } in leaves {
            self.find(Finding::Missing { from, to });
        }
        let mut chains: Vec<_> = self
            .chains
            .iter()
            .flat_map(|(source, chain)| chain.order.missing().map(move |gap| (source.clone(), gap)))
            .collect();
        chains.sort_by(|a, b| a.0.cmp(&b.0));
        for (source_of, gap) in chains {
            self.find(Finding::MissingInChain { source_of, from: gap.start, to: gap.end });
        }
    }

    fn find(&mut self, finding: Finding) {
        if !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }
}
