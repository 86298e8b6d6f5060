//! The Merkle log: frozen bytes made by another implementation (Python's `hashlib`, and `cryptography` for Ed25519;
//! the tree is the one that Certificate Transparency tests with), and every size up to 200 against RFC 9162's
//! definition, written down as it stands there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use ed25519_dalek::SigningKey;
use oakallow_policy::canonical::{hex, unhex};
use oakallow_policy::merkle::*;
use proptest::prelude::*;
use serde::Deserialize;

mod checkpoints;
mod model;
mod tiles;

use model::Model;

#[derive(Deserialize)]
struct Vectors {
    tree: Tree,
    leaves: Vec<LeafVector>,
    checkpoints: Checkpoints,
    notes: Vec<NoteVector>,
    paths: Vec<PathVector>,
}

#[derive(Deserialize)]
struct Tree {
    entries: Vec<String>,
    roots: Vec<String>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(Deserialize)]
struct LeafVector {
    source: String,
    seq: u64,
    salt: Salt,
    contents: String,
    commitment: Hash,
    entry: String,
    hash: Hash,
}

#[derive(Deserialize)]
struct Checkpoints {
    seed: String,
    origin: String,
    key: String,
    signed: Vec<SignedVector>,
}

#[derive(Deserialize)]
struct SignedVector {
    size: u64,
    root: Hash,
    note: String,
}

#[derive(Deserialize)]
struct NoteVector {
    about: String,
    key: String,
    note: String,
}

#[derive(Deserialize)]
struct PathVector {
    path: String,
    level: u8,
    start: u64,
    width: u16,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/merkle.json")).unwrap()
}

impl Checkpoints {
    fn signer(&self) -> LogSigner {
        let seed: [u8; 32] = unhex(&self.seed).unwrap().try_into().unwrap();
        LogSigner::new(&self.origin, SigningKey::from_bytes(&seed)).unwrap()
    }
}

/// A log with everything that is stored of it.
#[derive(Default)]
struct Log {
    frontier: Frontier,
    tiles: Tiles,
    roots: Vec<Hash>,
}

impl Log {
    fn of(leaves: &[Hash]) -> Self {
        let mut log = Self { roots: vec![Hash::EMPTY], ..Self::default() };
        let mut stored = Vec::new();
        for leaf in leaves {
            log.frontier.append(*leaf, &mut stored).unwrap();
            log.roots.push(log.frontier.root());
        }
        log.tiles.extend(stored);
        log
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| Hash::of_leaf(&n.to_be_bytes())).collect()
}

#[test]
fn the_tree_of_certificate_transparency() {
    let Tree { entries, roots, inclusion, consistency } = vectors().tree;
    let entries: Vec<Hash> = entries.iter().map(|e| Hash::of_leaf(&unhex(e).unwrap())).collect();
    let log = Log::of(&entries);
    assert_eq!(log.roots.iter().map(|root| hex(&root.0)).collect::<Vec<_>>(), roots);
    for proof in inclusion {
        assert_eq!(Inclusion::prove(proof.index, proof.size, &log.tiles).unwrap(), proof);
        proof.check(log.roots[proof.size as usize], entries[proof.index as usize]).unwrap();
    }
    for proof in consistency {
        assert_eq!(Consistency::prove(proof.before, proof.size, &log.tiles).unwrap(), proof);
        proof.check(log.roots[proof.before as usize], log.roots[proof.size as usize]).unwrap();
    }
}

#[test]
fn every_root_and_proof_up_to_200_leaves_is_that_of_the_definition() {
    let leaves = leaves(200);
    let (log, model) = (Log::of(&leaves), Model::of(&leaves));
    for size in 0..=leaves.len() {
        assert_eq!(log.roots[size], model.root(0, size), "{size}");
        // Of the larger ones not each place: hashing is slow in a test build.
        let some = |n: &usize| size <= 32 || n % 41 == size % 41 || n + 1 == size;
        for (index, leaf) in leaves[..size].iter().enumerate().filter(|(n, _)| some(n)) {
            let proof = Inclusion::prove(index as u64, size as u64, &log.tiles).unwrap();
            assert_eq!(proof.path, model.path(index, (0, size)), "{index} of {size}");
            proof.check(log.roots[size], *leaf).unwrap();
        }
        for before in (0..=size).filter(some) {
            let proof = Consistency::prove(before as u64, size as u64, &log.tiles).unwrap();
            assert_eq!(proof.path, model.consistency(before, size), "{before} to {size}");
            proof.check(log.roots[before], log.roots[size]).unwrap();
        }
    }
}

#[test]
fn what_was_asked_for_is_enough_and_in_the_tree() {
    let size = 66_000;
    let leaves: Vec<Hash> = (0..size).map(|n| Hash([n as u8 ^ (n >> 8) as u8; 32])).collect();
    let model = Model::of(&leaves);
    let root = |size: u64| model.root(0, size as usize);
    let read = |wanted: Vec<Tile>| {
        let mut tiles = Tiles::default();
        for tile in wanted {
            assert!(tile.is_in(size), "{tile:?}");
            let span = 1 << (8 * u32::from(tile.level()));
            let hash = |n: u64| model.root((n * span) as usize, ((n + 1) * span) as usize);
            tiles.insert(tile, &(tile.start()..tile.end()).map(hash).collect::<Vec<_>>());
        }
        tiles
    };
    for index in [0, 255, 65_535, 65_536, 65_999] {
        let tiles = read(Inclusion::tiles(index, size).unwrap());
        let proof = Inclusion::prove(index, size, &tiles).unwrap();
        proof.check(root(size), leaves[index as usize]).unwrap();
        assert_eq!(Inclusion::prove(index, size, &Tiles::default()), Err(ProofError::MissingTile));
    }
    for before in [1, 300, 65_536, 65_999] {
        let tiles = read(Consistency::tiles(before, size).unwrap());
        let proof = Consistency::prove(before, size, &tiles).unwrap();
        proof.check(root(before), root(size)).unwrap();
    }
}

#[test]
fn proofs_of_what_cannot_be_are_refused() {
    let tiles = Tiles::default();
    assert_eq!(Inclusion::tiles(5, 5), Err(ProofError::NoSuchLeaf { index: 5, size: 5 }));
    assert_eq!(Inclusion::prove(0, u64::MAX, &tiles), Err(ProofError::TooLarge));
    assert_eq!(Consistency::prove(6, 5, &tiles), Err(ProofError::Shrunk { before: 6, size: 5 }));
    let long = Inclusion { index: 0, size: SIZE_MAX, path: vec![Hash::EMPTY; 10_000] };
    assert_eq!(long.check(Hash::EMPTY, Hash::EMPTY), Err(ProofError::Wrong));
    let root = Hash::of_leaf(b"");
    let nothing = |before, size, path| Consistency { before, size, path }.check(Hash::EMPTY, root);
    assert_eq!(nothing(0, 1, vec![]), Ok(()));
    assert_eq!(nothing(0, 1, vec![root]), Err(ProofError::Wrong));
    assert_eq!(nothing(0, 0, vec![]), Err(ProofError::Wrong), "a tree without leaves has one root");
}

#[test]
fn a_frontier_is_restored_from_what_was_stored() {
    let leaves = leaves(300);
    let whole = Log::of(&leaves);
    let mut log = Log::of(&leaves[..201]);
    let stored = (log.frontier.size(), log.frontier.subtrees().to_vec());
    log.frontier = Frontier::restore(stored.0, stored.1.clone()).unwrap();
    for leaf in &leaves[201..] {
        log.frontier.append(*leaf, &mut Vec::new()).unwrap();
    }
    assert_eq!(log.frontier, whole.frontier);
    let wrong = Frontier::restore(202, stored.1[1..].to_vec()).unwrap_err();
    assert_eq!(wrong, FrontierError::Subtrees { size: 202, expected: 4, found: 3 });
    assert_eq!(Frontier::restore(u64::MAX, vec![]), Err(FrontierError::Full));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn random_trees(count in 200_u64..2_000, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let leaves = leaves(count);
        let (log, model) = (Log::of(&leaves), Model::of(&leaves));
        let size = a.index(leaves.len()) + 1;
        let other = b.index(size);
        prop_assert_eq!(log.roots[size], model.root(0, size));
        let proof = Inclusion::prove(other as u64, size as u64, &log.tiles).unwrap();
        prop_assert_eq!(&proof.path, &model.path(other, (0, size)));
        let proof = Consistency::prove(other as u64, size as u64, &log.tiles).unwrap();
        prop_assert_eq!(&proof.path, &model.consistency(other, size));
    }

    #[test]
    fn a_changed_proof_does_not_hold(count in 2_u64..400, at in any::<prop::sample::Index>(), bit in 0_usize..256) {
        let leaves = leaves(count);
        let log = Log::of(&leaves);
        let index = at.index(leaves.len());
        let root = log.frontier.root();
        let good = Inclusion::prove(index as u64, count, &log.tiles).unwrap();
        let mut flipped = good.clone();
        let place = at.index(flipped.path.len());
        flipped.path[place].0[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(flipped.check(root, leaves[index]), Err(ProofError::Wrong));
        let mut short = good.clone();
        short.path.pop();
        prop_assert_eq!(short.check(root, leaves[index]), Err(ProofError::Wrong));
        let other = (index + 1) % leaves.len();
        prop_assert_eq!(good.check(root, leaves[other]), Err(ProofError::Wrong));
        let moved = Inclusion { index: other as u64, ..good };
        prop_assert!(moved.check(root, leaves[index]).is_err());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*", path in "tile/[0-9x/.p]{0,30}") {
        let _ = Checkpoint::open(&text, &[]);
        let _ = text.parse::<LogKey>();
        let _ = Leaf::parse(&text);
        if let Ok(resource) = path.parse::<Resource>() {
            prop_assert_eq!(resource.to_string(), path);
        }
    }
}

#[test]
fn leaves_and_their_commitments() {
    for v in vectors().leaves {
        assert_eq!(v.salt.commit(v.contents.as_bytes()), v.commitment);
        let leaf = Leaf { source: v.source, seq: v.seq, commitment: v.commitment };
        assert_eq!(leaf.entry(), v.entry);
        assert_eq!(leaf.hash(), v.hash);
        assert_eq!(Leaf::parse(&v.entry), Ok(leaf));
        for wrong in [
            v.entry.replace("/v1", "/v2"),
            v.entry.replace("\n1\n", "\n01\n") + "x",
            format!("{}\n", v.entry),
        ] {
            assert_eq!(Leaf::parse(&wrong), Err(LeafError), "{wrong}");
        }
    }
}

#[test]
fn a_salt_is_not_printed() {
    let salt = Salt([0x41; SALT_BYTES]);
    assert_eq!(format!("{salt:?}"), "Salt(…)");
    let refused = serde_json::from_str::<Salt>("\"c2VjcmV0\"").unwrap_err().to_string();
    assert!(!refused.contains("c2VjcmV0"), "{refused}");
}
