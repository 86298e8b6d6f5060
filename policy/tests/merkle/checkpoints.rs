//! Signed tree heads, their keys, and who keeps them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use oakallow_policy::canonical::unhex;
use oakallow_policy::id::Name;
use oakallow_policy::merkle::*;

use crate::{Log, NoteVector, SignedVector, leaves, vectors};

#[test]
fn checkpoints_and_their_signatures() {
    let v = vectors().checkpoints;
    let (signer, key): (_, LogKey) = (v.signer(), v.key.parse().unwrap());
    assert_eq!((signer.public(), key.to_string()), (&key, v.key.clone()));
    for SignedVector { size, root, note } in &v.signed {
        let checkpoint = Checkpoint { origin: v.origin.clone(), size: *size, root: *root };
        assert_eq!(&checkpoint.sign(&signer), note);
        assert_eq!(Checkpoint::open(note, std::slice::from_ref(&key)), Ok(checkpoint));
    }
}

#[test]
fn a_changed_checkpoint_is_refused_at_every_byte() {
    let v = vectors().checkpoints;
    let keys = [v.key.parse().unwrap()];
    let note = &v.signed[2].note;
    for at in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        assert!(Checkpoint::open(&changed, &keys).is_err(), "byte {at}");
    }
}

#[test]
fn notes_that_others_signed_are_understood_as_notes_and_refused_as_checkpoints() {
    for NoteVector { about, key, note } in vectors().notes {
        let keys = [key.parse().unwrap()];
        assert_eq!(Checkpoint::open(&note, &keys), Err(CheckpointError::Text), "{about}");
        let changed = note.replacen("is ", "was ", 1);
        assert_eq!(Checkpoint::open(&changed, &keys), Err(CheckpointError::Signature), "{about}");
        assert_eq!(Checkpoint::open(&note, &[]), Err(CheckpointError::Unsigned), "{about}");
    }
}

#[test]
fn only_the_three_lines_of_this_log_are_a_checkpoint() {
    let v = vectors().checkpoints;
    let (signer, key): (_, LogKey) = (v.signer(), v.key.parse().unwrap());
    let signed = |text: String| {
        let seed: [u8; 32] = unhex(&v.seed).unwrap().try_into().unwrap();
        let signature = SigningKey::from_bytes(&seed).sign(text.as_bytes()).to_bytes();
        let line = [key.id().to_be_bytes().as_slice(), &signature].concat();
        let line = STANDARD.encode(line);
        format!("{text}\n— {} {line}\n", v.origin)
    };
    let open = |note: &str| Checkpoint::open(note, std::slice::from_ref(&key));
    let (origin, root) = (&v.origin, Hash::EMPTY);
    assert!(open(&signed(format!("{origin}\n0\n{root}\n"))).is_ok());
    for text in [
        format!("{origin}\n00\n{root}\n"),
        format!("{origin}\n+1\n{root}\n"),
        format!("{origin}\n1\n{root}\nan extension\n"),
        format!("{origin}\n1\n"),
        format!("{origin}\n1\n{root}=\n"),
        format!("{origin}\n{}\n{root}\n", SIZE_MAX + 1),
        format!("\n1\n{root}\n"),
    ] {
        assert_eq!(open(&signed(text.clone())), Err(CheckpointError::Text), "{text}");
    }
    let other = signed(format!("audit.example.com/other\n0\n{root}\n"));
    assert_eq!(open(&other), Err(CheckpointError::Origin("audit.example.com/other".to_owned())));
    // A witness' signature beside the log's is passed over.
    let witnessed = v.signed[1].note.clone() + "— witness.example AAAAAQAAAAAAAAAA\n";
    assert!(open(&witnessed).is_ok());
    assert_eq!(open(&"x".repeat(70_000)), Err(CheckpointError::Note));
    assert_eq!(format!("{signer:?}"), format!("LogSigner({})", v.key));
}

#[test]
fn keys_of_logs_are_read_strictly() {
    let key = vectors().checkpoints.key;
    for wrong in [
        key.replace('+', " "),
        key.replacen("audit", "Audit", 1),
        key.replace("+A", "+B"),
        format!("{key}A"),
        key.to_uppercase(),
    ] {
        assert!(wrong.parse::<LogKey>().is_err(), "{wrong}");
    }
    let signing = SigningKey::from_bytes(&[1; 32]);
    for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
        assert!(LogSigner::new(name, signing.clone()).is_err(), "{name:?}");
    }
}

#[test]
fn an_origin_names_the_installation_and_the_org() {
    let of = |org: &str| origin("audit.example.com", &Name::new(org).unwrap()).unwrap();
    assert_eq!(of("acme"), "audit.example.com/acme");
    assert_eq!(of("Café + Söhne"), "audit.example.com/Caf%C3%A9%20%2B%20S%C3%B6hne");
    assert_ne!(of("a/b"), of("a%2Fb"));
    assert_eq!(origin("a b", &Name::new("acme").unwrap()), Err(OriginError));
    LogSigner::new(&of("Café + Söhne"), SigningKey::from_bytes(&[1; 32])).unwrap();
}

#[test]
fn who_watches_takes_only_a_log_that_goes_on() {
    let v = vectors().checkpoints;
    let (signer, mut other) = (v.signer(), leaves(10));
    let log = Log::of(&other);
    other[3] = Hash::of_leaf(b"another");
    let fork = Log::of(&other);
    let note = |log: &Log, size: usize| {
        Checkpoint { origin: v.origin.clone(), size: size as u64, root: log.roots[size] }.sign(&signer)
    };
    let proof = |log: &Log, before, size| Consistency::prove(before, size, &log.tiles).unwrap();
    let mut watch = Watch::new(vec![signer.public().clone()], None);
    watch.take(&note(&log, 5), &proof(&log, 0, 5)).unwrap();
    watch.take(&note(&log, 5), &proof(&log, 5, 5)).unwrap();
    assert_eq!(
        watch.take(&note(&fork, 5), &proof(&fork, 5, 5)),
        Err(WatchError::Forked { seen: 5, size: 5 })
    );
    assert_eq!(
        watch.take(&note(&fork, 8), &proof(&fork, 5, 8)),
        Err(WatchError::Forked { seen: 5, size: 8 })
    );
    assert_eq!(watch.take(&note(&log, 4), &proof(&log, 4, 5)), Err(WatchError::Cut { seen: 5, size: 4 }));
    assert_eq!(
        watch.take(&note(&log, 8), &proof(&log, 4, 8)),
        Err(WatchError::OtherProof { before: 4, size: 8, seen: 5, found: 8 })
    );
    assert!(matches!(watch.take("", &proof(&log, 5, 8)), Err(WatchError::Checkpoint(_))));
    assert_eq!(watch.size(), 5, "nothing of that was taken");
    watch.take(&note(&log, 8), &proof(&log, 5, 8)).unwrap();
    assert_eq!(watch.seen().unwrap().root, log.roots[8]);
}
