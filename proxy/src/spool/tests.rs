//! What is kept, and when nothing more is taken.

use super::*;
use crate::event;
use oakallow_policy::audit::{EventData, EventType};

fn event(kind: EventType, txn: &str) -> Event {
    event::plain(kind, Some(txn.to_owned()), EventData::default())
}

fn limits(spool_events_max: u64) -> Limits {
    Limits { spool_events_max, ..Limits::default() }
}

fn open(directory: &Path, events_max: u64) -> Spool {
    Spool::open(directory, "proxy/prx_1", Durability::Process, &limits(events_max)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_survive_as_one_chain_and_open_calls_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    for txn in ["txn_a", "txn_b"] {
        spool
            .append(vec![event(EventType::CallDecided, txn), event(EventType::CallForwarded, txn)])
            .await
            .unwrap();
    }
    spool.append_outcome(event(EventType::CallCompleted, "txn_a")).await.unwrap();
    let mut head = Head::default();
    for kept in spool.unacknowledged(100, 1 << 20).unwrap() {
        let chained: Chained = serde_json::from_slice(&kept.bytes).unwrap();
        assert_eq!(chained.seq, kept.seq);
        head = chained.follow("proxy/prx_1", &head).unwrap();
    }
    assert_eq!((head.seq, &head), (5, &spool.standing().head));
    let left = spool.open_calls().unwrap();
    assert_eq!(left.len(), 1);
    let closing = event::closing(left.into_iter().next().unwrap().1);
    assert_eq!((closing.kind, closing.txn.as_deref()), (EventType::CallUnknown, Some("txn_b")));
    spool.append_outcome(closing).await.unwrap();
    assert!(spool.open_calls().unwrap().is_empty());
    // A copy of the files is what a restart would find: no flush was asked for.
    let found = reopened(directory.path());
    assert_eq!(found.standing(), spool.standing());
    assert!(found.open_calls().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_actions_and_takes_outcomes() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 2);
    let two = vec![event(EventType::CallDecided, "txn_a"), event(EventType::CallForwarded, "txn_a")];
    spool.append(two).await.unwrap();
    let refused = spool.append(vec![event(EventType::CallForwarded, "txn_b")]).await;
    assert_eq!(refused, Err(SpoolError::Full));
    let in_an_hour = crate::clock::now_ms() + 3_600_000;
    assert!((3_600..3_660).contains(&spool.oldest_age_s(in_an_hour)));
    assert!(spool.bytes() > 0);
    assert_eq!(spool.append_outcome(event(EventType::CallCompleted, "txn_a")).await, Ok(3));
    spool.acknowledge(3).unwrap();
    assert_eq!(spool.standing().depth(), 0);
    assert!(spool.unacknowledged(10, 1 << 20).unwrap().is_empty());
    assert_eq!(spool.oldest_age_s(in_an_hour), 0);
    spool.append(vec![event(EventType::CallForwarded, "txn_b")]).await.unwrap();
    assert_eq!(spool.unacknowledged(10, 1 << 20).unwrap().first().map(|e| e.seq), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_about_to_be_done_closes_the_call_and_is_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    let opening = |txn| event(EventType::ApprovalConsumed, txn);
    for txn in ["txn_a", "txn_b", "txn_c"] {
        spool.append_opening(vec![event(EventType::CallHeld, txn)], opening(txn)).await.unwrap();
    }
    spool.append(vec![event(EventType::CallForwarded, "txn_b")]).await.unwrap();
    spool.append(vec![event(EventType::CallRefused, "txn_c")]).await.unwrap();
    assert_eq!(spool.standing().head.seq, 5);
    let closed = spool.open_calls().unwrap().into_iter().map(|(txn, opened)| (txn, event::closing(opened)));
    let closed: Vec<_> = closed.map(|(txn, event)| (txn, event.kind)).collect();
    let expected = [("txn_a", EventType::CallNotForwarded), ("txn_b", EventType::CallUnknown)];
    assert_eq!(closed, expected.map(|(txn, kind)| (txn.to_owned(), kind)));
}

#[tokio::test]
async fn a_spool_has_one_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path(), 2);
    let second = Spool::open(directory.path(), "proxy/prx_1", Durability::Process, &limits(2)).err();
    assert_eq!(second, Some(SpoolError::InUse(directory.path().to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_at_once_is_bounded_and_never_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    let events = (0..10).map(|n| event(EventType::CallDecided, &format!("txn_{n}"))).collect();
    spool.append(events).await.unwrap();
    let bytes = spool.unacknowledged(1, 0).unwrap()[0].bytes.len() + 2;
    assert_eq!(spool.unacknowledged(4, 1 << 20).unwrap().len(), 4);
    assert_eq!(spool.unacknowledged(100, 3 * bytes).unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_whose_files_are_gone_takes_no_action_and_what_has_happened_still_goes_out() {
    for remove in [
        (|at: &Path| std::fs::remove_dir_all(at).unwrap()) as fn(&Path),
        |at| std::fs::rename(at, at.with_extension("old")).unwrap(),
        |at| {
            // Something else in its place.
            std::fs::remove_dir_all(at).unwrap();
            std::fs::create_dir(at).unwrap();
            std::fs::write(at.join("lock"), "").unwrap();
            std::fs::write(segment::path(at, 1), "").unwrap();
        },
        |at| std::fs::remove_file(segment::path(at, 1)).unwrap(),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(&directory.path().join("spool"), 100);
        spool.append(vec![event(EventType::CallForwarded, "txn_a")]).await.unwrap();
        assert!(!spool.is_failing());
        remove(&directory.path().join("spool"));
        assert!(spool.is_failing());
        let refused = spool.append(vec![event(EventType::CallForwarded, "txn_b")]).await;
        assert!(matches!(refused, Err(SpoolError::Gone)), "{refused:?}");
        assert_eq!(spool.append_outcome(event(EventType::CallCompleted, "txn_a")).await, Ok(2));
        assert_eq!(spool.unacknowledged(10, 1 << 20).unwrap().len(), 2);
        assert!(spool.is_failing());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_in_doubt_takes_no_action_until_the_backend_has_taken_it() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    let act = async || spool.append(vec![event(EventType::CallForwarded, "txn_a")]).await;
    for (standing, error) in
        [(Chain::Unconfirmed, SpoolError::Unconfirmed), (Chain::Contradicted, SpoolError::Contradicted)]
    {
        spool.set_chain(standing).unwrap();
        assert_eq!(act().await, Err(error));
        assert!(spool.append_outcome(event(EventType::ProxyStarted, "txn_b")).await.is_ok());
    }
    spool.set_chain(Chain::Good).unwrap();
    assert!(act().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_doubt() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    spool.append(vec![event(EventType::CallForwarded, "txn_a")]).await.unwrap();
    for in_doubt in [Chain::Unconfirmed, Chain::Contradicted] {
        assert_eq!(spool.set_chain(in_doubt), Ok(true));
        assert_eq!(spool.set_chain(in_doubt), Ok(false));
        let next = reopened(directory.path());
        assert_eq!(next.chain(), Chain::Unconfirmed);
        let refused = next.append(vec![event(EventType::CallForwarded, "txn_b")]).await;
        assert_eq!(refused, Err(SpoolError::Unconfirmed));
        spool.set_chain(Chain::Good).unwrap();
        assert_eq!(reopened(directory.path()).chain(), Chain::Good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_cannot_be_kept_stops_calls_all_the_same_and_is_kept_when_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    let mark = directory.path().join(doubt::MARK);
    std::fs::create_dir(&mark).unwrap();
    assert!(matches!(spool.set_chain(Chain::Contradicted), Err(SpoolError::Unwritable(_))));
    assert_eq!(spool.chain(), Chain::Contradicted);
    std::fs::remove_dir(&mark).unwrap();
    assert_eq!(spool.set_chain(Chain::Contradicted), Ok(false));
    assert!(mark.is_file());
}

/// What a restart would find: the files as they are, copied.
fn reopened(directory: &Path) -> Spool {
    let copy = tempfile::tempdir().unwrap().keep();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    open(&copy, 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_could_not_be_written_is_written_first_when_that_is_possible_again() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    spool.append(vec![event(EventType::CallForwarded, "txn_a")]).await.unwrap();
    for refused in [event(EventType::CallCompleted, "txn_a"), event(EventType::ProxyStarted, "txn_c")] {
        spool.log.fail_next();
        assert!(spool.append_outcome(refused).await.is_err());
        assert!(spool.is_failing());
    }
    assert_eq!(spool.append(vec![event(EventType::CallForwarded, "txn_b")]).await, Ok(4));
    let kept = spool.unacknowledged(10, 1 << 20).unwrap();
    let kinds: Vec<_> =
        kept.iter().map(|k| serde_json::from_slice::<Chained>(&k.bytes).unwrap().event.kind).collect();
    let expected = [
        EventType::CallForwarded,
        EventType::CallCompleted,
        EventType::ProxyStarted,
        EventType::CallForwarded,
    ];
    assert_eq!(kinds, expected);
    let open: Vec<_> = spool.open_calls().unwrap().into_iter().map(|(txn, _)| txn).collect();
    assert_eq!(open, ["txn_b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_was_damaged_takes_no_action_until_the_backend_has_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = segment::path(directory.path(), 1);
    {
        let spool = open(directory.path(), 100);
        spool.append(vec![event(EventType::CallForwarded, "txn_a")]).await.unwrap();
    }
    let length = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(length - 1).unwrap();
    let spool = reopened(directory.path());
    assert_eq!(spool.chain(), Chain::Unconfirmed);
    let refused = spool.append(vec![event(EventType::CallForwarded, "txn_b")]).await;
    assert_eq!(refused, Err(SpoolError::Unconfirmed));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), 100);
    spool.append(vec![event(EventType::CallForwarded, "txn_a")]).await.unwrap();
    let path = segment::path(directory.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(spool.unacknowledged(10, 1 << 20).is_err());
    assert!(spool.is_failing());
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(spool.unacknowledged(10, 1 << 20).unwrap().len(), 1);
    assert!(!spool.is_failing());
}
