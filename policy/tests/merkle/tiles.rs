//! How tiles are named, cut and bundled.

use oakallow_policy::merkle::*;

use crate::vectors;

#[test]
fn a_tree_of_70_000_leaves_has_the_tiles_of_the_specification() {
    let added = Tile::added(0, 70_000);
    let of = |level: u8| added.iter().filter(|t| t.level() == level).copied().collect::<Vec<_>>();
    assert_eq!(of(0).len(), 274);
    assert_eq!(of(0).last().unwrap().width(), 112);
    assert_eq!(of(1).iter().map(|t| t.width()).collect::<Vec<_>>(), [256, 17]);
    assert_eq!(of(2).iter().map(|t| t.width()).collect::<Vec<_>>(), [1]);
    assert_eq!(Tile::added(0, 256).len(), 2);
    assert_eq!(Tile::added(70_000, 70_000), []);
}

#[test]
fn paths_of_tiles() {
    for v in vectors().paths {
        let Ok(Resource::Tile(tile)) = v.path.parse() else { panic!("{}", v.path) };
        assert_eq!((tile.level(), tile.start(), tile.width()), (v.level, v.start, v.width));
        assert_eq!(Resource::Tile(tile).to_string(), v.path);
        if v.level == 0 {
            let entries = v.path.replace("tile/0/", "tile/entries/");
            assert_eq!(entries.parse(), Ok(Resource::Entries(tile)));
        }
    }
    for wrong in [
        "",
        "tile/0",
        "tile/0/0",
        "tile/0/1000",
        "tile/0/x001",
        "tile/00/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/64/000",
        "tile/8/000",
        "tile/0/xx001/000",
        "tile/0/000/",
        "/tile/0/000",
        "tile/entries/000.p/",
        "tile/data/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/-1/000",
    ] {
        assert_eq!(wrong.parse::<Resource>(), Err(TilePathError), "{wrong}");
    }
}

#[test]
fn bundles_of_entries() {
    let bytes = bundle([b"ab".as_slice(), b"", &[7; 300]]).unwrap();
    assert_eq!(bytes[..6], [0, 2, b'a', b'b', 0, 0]);
    assert_eq!(unbundle(&bytes).unwrap(), [b"ab".as_slice(), b"", &[7; 300]]);
    assert_eq!(unbundle(&bytes[..bytes.len() - 1]), Err(BundleError::Short));
    assert_eq!(unbundle(&[0]), Err(BundleError::Short));
    assert_eq!(bundle([[0; ENTRY_BYTES_MAX + 1].as_slice()]), Err(BundleError::TooLong(65_536)));
}
