//! The log against a naive model: a list of what was written. Whatever is done with it, in whatever order, with
//! segments of a few events, restarts and torn last writes, it says what the model says.

use std::collections::BTreeMap;
use std::path::Path;

use oakallow_policy::audit::{Chained, Event, EventData, EventType, Head};
use oakallow_policy::life::{Tracked, tracked};
use proptest::prelude::*;

use super::doubt::{Doubt, MARK};
use super::log::{Batch, Log, Shape};
use super::{Standing, recover, segment};
use crate::event;

const SOURCE: &str = "proxy/prx_1";
const KINDS: [EventType; 4] =
    [EventType::CallDecided, EventType::CallHeld, EventType::CallForwarded, EventType::CallCompleted];
/// Room for three or four events.
const SEGMENT_BYTES: u64 = 1_500;

#[derive(Debug, Clone)]
enum Step {
    /// Events, and perhaps a call that is opened beside them; the last so many per mille of the write are lost in a
    /// restart, if any.
    Append {
        events: Vec<(usize, u8)>,
        opening: Option<u8>,
        torn: Option<u64>,
    },
    /// The backend has so many per mille of what waits.
    Forget(u64),
    /// Read so many.
    Read(usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let events = prop::collection::vec((0..KINDS.len(), 0..6u8), 0..5);
    let opening = prop::option::weighted(0.2, 0..6u8);
    let append = (events, opening, prop::option::weighted(0.15, 0..1_000u64));
    let append = append.prop_map(|(events, opening, torn)| Step::Append { events, opening, torn });
    let step = prop_oneof![
        6 => append,
        3 => (0..=1_000u64).prop_map(Step::Forget),
        1 => (1..10usize).prop_map(Step::Read),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// What was written, in order.
#[derive(Debug, Clone)]
enum Written {
    Event(Event, Vec<u8>),
    Opening(Event),
}

struct Bench {
    directory: tempfile::TempDir,
    log: Option<Log>,
    head: Head,
    acknowledged: u64,
    written: Vec<Written>,
    doubt: Option<Doubt>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            directory: tempfile::tempdir().unwrap(),
            log: None,
            head: Head::default(),
            acknowledged: 0,
            written: Vec::new(),
            doubt: None,
        };
        bench.restart();
        bench
    }

    fn restart(&mut self) -> Standing {
        self.log = None;
        let shape = Shape { sync: false, segment_bytes: SEGMENT_BYTES };
        let found = recover::open_as(self.directory.path(), shape).unwrap();
        self.log = Some(found.log);
        self.doubt = Some(found.doubt);
        found.standing
    }

    /// The backend has taken everything.
    fn confirm(&self) {
        self.doubt.as_ref().unwrap().mark(false).unwrap();
    }

    fn is_in_doubt(&self) -> bool {
        self.doubt.as_ref().unwrap().is_marked()
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append { events, opening, torn } => self.append(&events, opening, torn),
            Step::Forget(part) => {
                let to = self.acknowledged + (self.head.seq - self.acknowledged) * part / 1_000;
                let bytes = self.waiting(self.acknowledged, to);
                assert_eq!(self.log().forget(to).unwrap(), bytes);
                self.acknowledged = to;
            }
            Step::Read(most) => {
                let read = self.log().read(self.acknowledged, most, usize::MAX).unwrap();
                let read: Vec<_> = read.into_iter().map(|kept| (kept.seq, kept.bytes.to_vec())).collect();
                assert_eq!(read, self.after(self.acknowledged).into_iter().take(most).collect::<Vec<_>>());
            }
            Step::Restart => {
                let standing = self.restart();
                assert_eq!(standing.head, self.head);
                self.believe(&standing);
            }
        }
        self.check();
    }

    fn append(&mut self, events: &[(usize, u8)], opening: Option<u8>, torn: Option<u64>) {
        let (before, mut batch) = (self.head.clone(), Batch::default());
        for (kind, txn) in events {
            let event = event::plain(KINDS[*kind], Some(format!("txn_{txn}")), EventData::default());
            let (chained, bytes, next) = Chained::append(SOURCE, &self.head, event.clone()).unwrap();
            batch.event(chained.seq, &bytes);
            match tracked(event.kind) {
                Tracked::Opens => batch.opens(&format!("txn_{txn}"), bytes.len()),
                Tracked::Closes => batch.closes(&format!("txn_{txn}")),
                Tracked::Passes => {}
            }
            self.written.push(Written::Event(event, bytes));
            self.head = next;
        }
        if let Some(txn) = opening {
            let txn = format!("txn_{txn}");
            let event = event::plain(EventType::ApprovalConsumed, Some(txn.clone()), EventData::default());
            batch.opening(&txn, &serde_json::to_vec(&event).unwrap());
            self.written.push(Written::Opening(event));
        }
        let (files, end) = (self.files(), self.end());
        self.log().append(batch, &before, &self.head).unwrap();
        // What was cleaned meanwhile is not torn: it was there before.
        if let Some(part) = torn.filter(|_| files == self.files()) {
            self.tear((self.end() - end) * part / 1_000);
        }
    }

    fn files(&self) -> Vec<u64> {
        segment::numbers(self.directory.path()).unwrap()
    }

    fn last_file(&self) -> std::path::PathBuf {
        segment::path(self.directory.path(), *self.files().last().unwrap())
    }

    fn end(&self) -> u64 {
        std::fs::metadata(self.last_file()).unwrap().len()
    }

    /// The last write is cut off: what is left is some beginning of what was written.
    fn tear(&mut self, bytes: u64) {
        let end = self.end() - bytes;
        std::fs::OpenOptions::new().write(true).open(self.last_file()).unwrap().set_len(end).unwrap();
        let standing = self.restart();
        let found = open(self.log().open_calls().unwrap());
        let fits = |n: &usize| {
            let written = &self.written[..*n];
            last(written) == standing.head.seq && opened(written) == found
        };
        let kept = (0..=self.written.len()).rev().find(fits).expect("some beginning of what was written");
        self.written.truncate(kept);
        self.head = standing.head.clone();
        self.believe(&standing);
    }

    /// What the backend has may be known less well after a restart.
    fn believe(&mut self, standing: &Standing) {
        assert!(standing.acknowledged <= self.acknowledged);
        assert_eq!(standing.waiting_bytes, self.waiting(standing.acknowledged, self.head.seq));
        self.acknowledged = standing.acknowledged;
    }

    fn check(&self) {
        assert_eq!(open(self.log().open_calls().unwrap()), opened(&self.written));
        let all = self.log().read(self.acknowledged, usize::MAX, usize::MAX).unwrap();
        let all: Vec<_> = all.into_iter().map(|kept| (kept.seq, kept.bytes.to_vec())).collect();
        assert_eq!(all, self.after(self.acknowledged));
        assert_eq!(self.log().bytes(), on_disk(self.directory.path()));
        // Each segment goes beyond its size by one batch, and what is kept twice is less than what is needed.
        let needed = self.waiting(self.acknowledged, self.head.seq) + 6 * 400;
        assert!(self.log().bytes() < 4 * (needed + 3 * SEGMENT_BYTES), "{} of {needed}", self.log().bytes());
    }

    fn after(&self, seq: u64) -> Vec<(u64, Vec<u8>)> {
        let events = self.written.iter().filter_map(|written| match written {
            Written::Event(_, bytes) => Some(bytes.clone()),
            Written::Opening(_) => None,
        });
        (1..).zip(events).filter(|(n, _)| *n > seq).collect()
    }

    fn waiting(&self, after: u64, to: u64) -> u64 {
        let events = self.after(after).into_iter().filter(|(seq, _)| *seq <= to);
        events.map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

fn last(written: &[Written]) -> u64 {
    written.iter().filter(|w| matches!(w, Written::Event(..))).count() as u64
}

fn opened(written: &[Written]) -> BTreeMap<String, EventType> {
    let mut open = BTreeMap::new();
    for written in written {
        let (Written::Event(event, _) | Written::Opening(event)) = written;
        let txn = event.txn.clone().unwrap();
        match (written, tracked(event.kind)) {
            (Written::Opening(_), _) | (_, Tracked::Opens) => drop(open.insert(txn, event.kind)),
            (_, Tracked::Closes) => drop(open.remove(&txn)),
            (_, Tracked::Passes) => {}
        }
    }
    open
}

fn open(calls: Vec<(String, Event)>) -> BTreeMap<String, EventType> {
    calls.into_iter().map(|(txn, event)| (txn, event.kind)).collect()
}

fn on_disk(directory: &Path) -> u64 {
    let files = segment::numbers(directory).unwrap();
    files.iter().map(|n| std::fs::metadata(segment::path(directory, *n)).unwrap().len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_log_says_what_was_written(steps in steps()) {
        let mut bench = Bench::new();
        for step in steps {
            bench.step(step);
        }
    }
}

/// Changes a byte of the last record of a segment; what it has now.
fn damage(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn what_stands_behind_a_damaged_record_is_set_aside_and_the_log_goes_on() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.append(&[(0, 1)], None, None);
    }
    let files = bench.files();
    assert!(files.len() > 3, "{files:?}");
    let [second, last] = [files[1], *files.last().unwrap()].map(|n| segment::path(bench.directory.path(), n));
    for (times, path) in [(0, &last), (1, &last), (2, &second)] {
        let bytes = damage(path);
        let standing = bench.restart();
        assert!(bench.is_in_doubt());
        assert_eq!(bench.files(), files);
        let name = if path == &last { format!("{times}.damaged") } else { "0.damaged".to_owned() };
        let kept = std::fs::read(path.with_extension(name)).unwrap();
        assert!(bytes.ends_with(&kept) && !kept.is_empty());
        // What is whole is still there, under its own numbers.
        let read = bench.log().read(0, usize::MAX, usize::MAX).unwrap();
        assert_eq!(read.last().map(|kept| kept.seq), Some(standing.head.seq));
        let all = bench.after(0);
        assert!(read.iter().all(|kept| all.contains(&(kept.seq, kept.bytes.to_vec()))));
        let bytes: usize = read.iter().map(|kept| kept.bytes.len()).sum();
        assert_eq!(standing.waiting_bytes, bytes as u64);
        let standing = bench.restart();
        assert!(bench.is_in_doubt(), "a restart settles nothing");
        bench.confirm();
        bench.restart();
        assert_eq!(bench.is_in_doubt(), path == &second, "events are missing for ever, a cut is made once");
        bench.head = standing.head;
        if path == &last {
            bench.written.truncate(usize::try_from(bench.head.seq).unwrap());
            bench.append(&[(0, 2)], None, None);
        }
    }
    // It goes on.
    bench.append(&[(2, 3), (0, 3)], None, None);
    assert_eq!(bench.restart().head, bench.head);
    // What the backend has anyway is missed by nobody.
    bench.log().forget(bench.head.seq).unwrap();
    bench.append(&[(0, 3)], None, None);
    bench.confirm();
    bench.restart();
    assert!(!bench.is_in_doubt());
}

#[test]
fn nothing_is_cut_off_before_the_doubt_is_on_the_disk() {
    let mut bench = Bench::new();
    bench.append(&[(0, 1)], None, None);
    let path = bench.last_file();
    let bytes = damage(&path);
    bench.log = None;
    // In the way of the mark, and not the mark itself.
    let mark = bench.directory.path().join(MARK);
    std::os::unix::fs::symlink("nowhere/else", &mark).unwrap();
    let shape = Shape { sync: false, segment_bytes: SEGMENT_BYTES };
    assert!(recover::open_as(bench.directory.path(), shape).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::remove_file(&mark).unwrap();
    bench.restart();
    assert!(bench.is_in_doubt() && mark.exists());
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.append(&[(2, 1)], None, None);
    let (path, end) = (bench.last_file(), bench.end());
    let mut batch = Batch::default();
    batch.event(2, b"{}");
    batch.opens("txn_lost", 2);
    bench.log().fail_next();
    assert!(bench.log().append(batch, &bench.head, &bench.head).is_err());
    assert_eq!((bench.last_file(), bench.end()), (path, end));
    bench.append(&[(3, 1)], None, None);
    assert_eq!(bench.restart().head, bench.head);
    bench.check();
}

#[test]
fn a_disk_that_the_spool_has_filled_has_room_again_when_the_backend_has_its_events() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.append(&[(0, 1)], None, None);
    }
    let full = bench.log().bytes();
    bench.log().forget(bench.head.seq).unwrap();
    bench.log().fail_next();
    let head = bench.head.clone();
    assert!(bench.log().append(Batch::default(), &head, &head).is_err());
    assert!(bench.log().bytes() < full / 2, "{full} before, {} after", bench.log().bytes());
}

#[test]
fn a_log_of_zeros_begins_anew() {
    let mut bench = Bench::new();
    bench.append(&[(2, 1)], None, None);
    let (path, length) = (bench.last_file(), bench.end());
    std::fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
    assert_eq!(bench.restart().head, Head::default());
    assert!(path.with_extension("0.damaged").exists());
    assert_ne!(bench.last_file(), path);
}
