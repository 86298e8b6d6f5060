//! An export is checked offline: each way of tampering with a good one is found, and called by its name.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use oakallow_policy::audit::EventType;
use oakallow_policy::audit::export::Line;
use oakallow_policy::audit::verify::{Finding, Report, Trusted, verify};
use oakallow_policy::merkle::{Checkpoint, Hash};
use oakallow_policy::rule::Permission;

mod made;

use made::{Made, ORIGIN, signer};

fn check(lines: &[Vec<u8>]) -> Report {
    verify(lines.to_vec(), &Trusted::default())
}

fn findings(lines: &[Vec<u8>]) -> Vec<Finding> {
    check(lines).findings
}

/// The number of a line, as findings have it.
fn number(at: usize) -> u64 {
    at as u64 + 1
}

#[test]
fn a_good_export_is_sound() {
    let made = Made::good();
    let report = check(&made.lines());
    assert_eq!(report.findings, []);
    assert_eq!((report.leaves, report.vouched, report.forwarded), (made.len(), made.len(), 8));
    assert_eq!(report.chains.values().sum::<u64>(), made.len());
    assert_eq!((report.open.len(), report.unjudged.len(), report.pinned), (0, 0, false));
    let trusted = Trusted { keys: vec![signer().public().clone()], checkpoints: vec![made.note(7)] };
    let report = verify(made.lines(), &trusted);
    assert!(report.is_sound() && report.pinned, "{report:?}");
}

/// What is written must not change by accident: exports are kept for years.
#[test]
fn the_form_is_frozen() {
    let frozen = include_str!("../vectors/export.ndjson");
    let lines: Vec<&str> = frozen.lines().collect();
    let made = Made::good().lines();
    assert_eq!(made.iter().map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>(), lines);
}

#[test]
fn a_byte_that_was_changed() {
    let lines = Made::good().lines();
    let checkpoints = lines.iter().filter(|l| l.starts_with(b"{\"checkpoint\"")).count();
    for at in 0..lines.len() {
        // Closely in one line of each kind.
        let step = if [0, 1, checkpoints + 1, lines.len() - 1].contains(&at) { 23 } else { 211 };
        for byte in (at % 7..lines[at].len()).step_by(step) {
            let mut lines = lines.clone();
            lines[at][byte] ^= if byte % 2 == 0 { 1 } else { 32 };
            let found = findings(&lines);
            let changed = vec![Finding::Changed { line: number(at) }];
            let refused = matches!(found.as_slice(), [Finding::BadCheckpoint { .. }]);
            let good = found == changed || (1..=checkpoints).contains(&at) && refused;
            assert!(good, "line {at}, byte {byte}: {found:?}");
        }
    }
}

#[test]
fn an_event_that_was_dropped() {
    let made = Made::good();
    for index in [0, 1, 7, 8, 15, made.len() - 2, made.len() - 1] {
        let mut lines = made.lines();
        lines.remove(made.line_of(index));
        assert_eq!(findings(&lines), [Finding::Missing { from: index, to: index + 1 }]);
    }
    let mut lines = made.lines();
    lines.drain(made.line_of(5)..made.line_of(9));
    assert_eq!(findings(&lines), [Finding::Missing { from: 5, to: 9 }]);
}

#[test]
fn events_in_another_order() {
    let made = Made::good();
    for index in [0, 1, 6, 7, 15, made.len() - 2] {
        let mut lines = made.lines();
        let at = made.line_of(index);
        lines.swap(at, at + 1);
        assert_eq!(findings(&lines), [Finding::Reordered { line: number(at + 1), index }]);
    }
    // Further apart: what came too early, and what came too late.
    let mut lines = made.lines();
    let moved = lines.remove(made.line_of(3));
    lines.insert(made.line_of(12), moved);
    assert_eq!(findings(&lines), [Finding::Reordered { line: number(made.line_of(12)), index: 3 }]);
    let mut lines = made.lines();
    let again = lines[made.line_of(3)].clone();
    lines.insert(made.line_of(9), again);
    assert_eq!(findings(&lines), [Finding::Reordered { line: number(made.line_of(9)), index: 3 }]);
}

#[test]
fn a_log_that_was_forked() {
    let made = Made::good();
    for size in [1, 7, 8, 16, made.len()] {
        let forged = Checkpoint { origin: ORIGIN.to_owned(), size, root: Hash::of_leaf(b"another") };
        let note = forged.sign(&signer());
        // In the export.
        let mut lines = made.lines();
        lines.insert(1, Line::Checkpoint(note.clone()).write().unwrap().into_bytes());
        assert_eq!(findings(&lines), [Finding::Forked { size }]);
        // Kept by somebody.
        let trusted = Trusted { checkpoints: vec![note], ..Trusted::default() };
        assert_eq!(verify(made.lines(), &trusted).findings, [Finding::Forked { size }]);
    }
    // Another history, sound in itself, for somebody who kept a checkpoint of the first.
    for differs in [0, 3, 6] {
        let other = Made::with(|n, event| {
            if n == differs {
                event.time = "2026-07-25T17:20:00.999Z".to_owned();
            }
        });
        assert_eq!(findings(&other.lines()), []);
        let trusted = Trusted { checkpoints: vec![made.note(7)], ..Trusted::default() };
        assert_eq!(verify(other.lines(), &trusted).findings, [Finding::Forked { size: 7 }]);
    }
}

#[test]
fn a_call_that_was_forwarded_without_a_decision() {
    let decided: Vec<u64> = Made::good().places(EventType::CallDecided);
    for place in decided {
        let denied = Made::with(|n, event| {
            if n == place {
                event.data.decision.as_mut().unwrap().permission = Permission::Disabled;
            }
        });
        let undecided = Made::with(|n, event| {
            if n == place {
                event.kind = EventType::CallRequested;
            }
        });
        for made in [denied, undecided] {
            let txn = made.txn(place);
            let found = findings(&made.lines());
            let named = |f: &Finding| matches!(f, Finding::NoDecision { txn: t, .. } if *t == txn);
            assert!(found.len() == 1 && named(&found[0]), "{place}: {found:?}");
        }
    }
    for place in Made::good().places(EventType::ApprovalConsumed) {
        let made = Made::with(|n, event| {
            if n == place {
                event.kind = EventType::ApprovalDecided;
            }
        });
        let found = findings(&made.lines());
        assert!(matches!(found.as_slice(), [Finding::NoDecision { .. }]), "{found:?}");
    }
}

#[test]
fn numbers_made_anew_hide_nothing() {
    let made = Made::good();
    for index in (0..made.len() - 1).step_by(4) {
        let lines = made.renumbered(|entries| drop(entries.remove(index as usize)));
        let found = findings(&lines);
        let named = |f: &Finding| {
            matches!(f, Finding::Missing { .. } | Finding::MissingInChain { .. } | Finding::Forked { .. })
        };
        assert!(!found.is_empty() && found.iter().any(named), "{index}: {found:?}");
        let lines = made.renumbered(|entries| entries.swap(index as usize, index as usize + 1));
        let found = findings(&lines);
        let named = |f: &Finding| {
            matches!(
                f,
                Finding::Forked { .. } | Finding::ReorderedInChain { .. } | Finding::BrokenChain { .. }
            )
        };
        assert!(!found.is_empty() && found.iter().any(named), "{index}: {found:?}");
    }
}

#[test]
fn contents_that_are_gone_leave_the_rest_as_it_was() {
    let made = Made::good();
    for kept_from in [1, 6, 13, made.len()] {
        let report = check(&made.retained(kept_from));
        assert_eq!(report.findings, [], "{kept_from}");
        assert_eq!((report.removed, report.vouched), (kept_from, made.len()));
    }
    // A forward whose decision is gone is neither good nor bad.
    let decided = made.places(EventType::CallDecided)[0];
    assert_eq!(check(&made.retained(decided + 1)).unjudged, [made.txn(decided)]);
    // A leaf without contents cannot be exchanged either.
    let mut lines = made.retained(13);
    lines.remove(made.line_of(4));
    assert_eq!(findings(&lines), [Finding::Missing { from: 4, to: 5 }]);
}

#[test]
fn an_export_may_begin_anywhere() {
    let made = Made::good();
    for from in [1, 6, 8, 13, made.len() - 1] {
        let lines = made.lines_from(from);
        let report = check(&lines);
        assert_eq!(report.findings, [], "{from}");
        assert_eq!((report.leaves, report.vouched), (made.len() - from, made.len()));
        let mut other = made.lines_from(from);
        other[0] = made.lines_from(from - 1)[0].clone();
        assert!(!check(&other).is_sound(), "another beginning");
    }
}

#[test]
fn somebody_must_vouch_for_it() {
    let made = Made::good();
    let unsigned: Vec<_> =
        made.lines().into_iter().filter(|line| !line.starts_with(b"{\"checkpoint\"")).collect();
    assert_eq!(findings(&unsigned), [Finding::Unvouched]);
    let stranger = made::signer_of(9).public().clone();
    let pinned = Trusted { keys: vec![stranger], ..Trusted::default() };
    let report = verify(made.lines(), &pinned);
    assert!(report.findings.iter().all(|f| matches!(f, Finding::BadCheckpoint { .. })), "{report:?}");
    assert!(!report.is_sound());
    assert_eq!(findings(&[]), [Finding::Changed { line: 1 }]);
}
