//! The seeds of the fuzz target `vhdx`: files from the builder, as `fuzz/src/vhdx.rs` packs them.

use std::path::Path;

use crate::builder::{Block, Builder, Built, EntryHead, MIB, Write, log_entry, pattern};

/// The file without its zeros.
fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = (bytes.len().div_ceil(4096) as u16).to_le_bytes().to_vec();
    for (n, page) in bytes.chunks(4096).enumerate() {
        let len = page
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |last| last + 1);
        if len > 0 {
            packed.extend((n as u16).to_le_bytes());
            packed.extend((len as u16).to_le_bytes());
            packed.extend(&page[..len]);
        }
    }
    packed
}

fn unfinished() -> Built {
    let builder = Builder {
        dirty: true,
        ..Builder::new(2 << 20)
    };
    let mut built = builder.build(&[(1, Block::Data(pattern(3, 90)))]);
    let len = built.bytes.len() as u64;
    let head = |sequence, tail| EntryHead {
        sequence,
        tail,
        flushed: len,
        last: len,
    };
    let table = built.sector(built.bat_at, &[]);
    let unused = built.metadata_at as u64 + MIB / 2;
    let writes = [table, Write::Zero(unused, 8192)];
    let entries = [
        log_entry(head(4, 8192), &writes),
        log_entry(head(5, 8192), &[]),
    ];
    built.log(8192, &entries);
    let at = built.bat_at + 8;
    built.put(at, &[0; 8]);
    built
}

fn seeds() -> Vec<(&'static str, Built)> {
    let block = |seed, len| Block::Data(pattern(seed, len));
    let plain = Builder::new((2 << 20) + 512);
    let large = Builder {
        sector: 4096,
        metadata_first: true,
        ..Builder::new(3 << 20)
    };
    let child = Builder::child(2 << 20, "parent.vhdx");
    let here = (0..40).map(|n| n % 3 == 0).collect();
    let fixed = Builder {
        flags: 1,
        ..Builder::new(1 << 20)
    };
    vec![
        (
            "dynamic",
            plain.build(&[
                (2, block(1, 300)),
                (0, block(2, 5000)),
                (1, Block::State(2)),
            ]),
        ),
        (
            "sectors-4096",
            large.build(&[(1, block(3, 5000)), (2, Block::State(3))]),
        ),
        (
            "child",
            child.build(&[
                (1, Block::Partial(pattern(4, 9000), here)),
                (0, Block::State(1)),
            ]),
        ),
        ("fixed", fixed.build(&[(0, block(5, 700))])),
        ("empty", Builder::new(2 << 20).build(&[])),
        ("log", unfinished()),
    ]
}

/// With `LONGSHORE_WRITE_SEEDS` set, makes them what they should be.
#[test]
fn seeds_are_what_the_builder_makes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/vhdx");
    let writes = std::env::var_os("LONGSHORE_WRITE_SEEDS").is_some();
    if writes {
        std::fs::create_dir_all(&folder).unwrap();
    }
    for (name, built) in seeds() {
        let packed = pack(&built.bytes);
        let path = folder.join(name);
        if writes {
            std::fs::write(&path, &packed).unwrap();
        }
        let there = std::fs::read(&path).unwrap();
        assert!(there == packed, "{name}: run fuzz/make-seeds.sh");
    }
}
