//! What qemu-img writes, both ways, against what it reads.

use longshore_image::Limits;
use longshore_image::vhdx;

use crate::builder::{Block, Builder, pattern};
use crate::support::{Bench, both_read};

/// A disk of `len` bytes with data here and there, holes between, and something in its last sector.
fn disk(len: usize) -> Vec<u8> {
    let mut disk = vec![0; len];
    for (n, place) in disk.chunks_mut(300_000).enumerate() {
        if n % 4 == 1 || n % 7 == 0 {
            let bytes = pattern(n as u64 + 1, place.len() / 2);
            place[..bytes.len()].copy_from_slice(&bytes);
        }
    }
    let end = len.saturating_sub(512);
    disk[end..].fill(0x5A);
    disk
}

#[test]
fn dynamic_and_fixed_of_any_block_size_equal_qemu_img() {
    let Some(bench) = Bench::new("vhdx") else {
        return;
    };
    for (len, sizes) in [
        (5 << 20, ["1M", "2M", "16M"]),
        ((3 << 20) + 512, ["16M", "1M", "8M"]),
        (513 * 512, ["1M", "32M", "4M"]),
    ] {
        bench.write("disk.raw", &disk(len));
        for subformat in ["dynamic", "fixed"] {
            let more = ["", ",block_state_zero=off", ",log_size=3M"];
            for (size, more) in sizes.iter().zip(more) {
                let options = format!("subformat={subformat},block_size={size}{more}");
                bench.img(&format!(
                    "convert -f raw -O vhdx -o {options} disk.raw i.vhdx"
                ));
                bench.check("i.vhdx");
            }
        }
    }
}

#[test]
fn blocks_in_any_order_and_rewritten_equal_qemu_img() {
    let Some(bench) = Bench::new("vhdx") else {
        return;
    };
    bench.img("create -q -f vhdx -o block_size=1M i.vhdx 40M");
    bench.check("i.vhdx");
    bench.io(
        "i.vhdx",
        &[
            "write -P 1 39M 1M",
            "write -P 2 3M 70k",
            "write -P 3 20000k 3000k",
            "write -P 4 3100k 512",
            "write -P 5 0 512",
        ],
    );
    bench.check("i.vhdx");
}

#[test]
fn a_disk_of_many_chunks_equals_qemu_img() {
    let Some(bench) = Bench::new("vhdx") else {
        return;
    };
    // 256 MiB blocks: a sector bitmap's entry after each sixteen.
    bench.img("create -q -f vhdx -o block_size=256M i.vhdx 18G");
    bench.io("i.vhdx", &["write -P 1 17G 64k"]);
    let image = vhdx::open(
        std::sync::Arc::new(bench.read("i.vhdx")),
        &longshore_image::DenyAll,
        &Limits::default(),
    )
    .unwrap();
    let extents = longshore_image::all_extents(image.as_ref()).unwrap();
    let data: Vec<_> = extents
        .iter()
        .filter(|e| e.kind != longshore_image::ExtentKind::Zero)
        .collect();
    assert_eq!(data.len(), 1, "{data:?}");
    assert_eq!(data[0].guest, 17 << 30..(17 << 30) + (256 << 20));
    let longshore_image::ExtentKind::Data { at } = data[0].kind else {
        panic!("{data:?}");
    };
    let mut found = vec![0; 70_000];
    image.data().read_exact_at(&mut found, at).unwrap();
    let (written, rest) = found.split_at(65_536);
    assert!(written.iter().all(|b| *b == 1) && rest.iter().all(|b| *b == 0));
}

#[test]
fn what_we_build_qemu_img_reads_the_same() {
    let Some(bench) = Bench::new("vhdx") else {
        return;
    };
    for metadata_first in [false, true] {
        let builder = Builder {
            metadata_first,
            ..Builder::new((9 << 20) + 512)
        };
        let blocks = [
            (4, Block::Data(pattern(4, 1 << 20))),
            (0, Block::Data(pattern(1, 1 << 20))),
            (1, Block::State(1)),
            (2, Block::State(2)),
            (3, Block::State(3)),
            (5, Block::State(5)),
            (6, Block::State(0)),
            (9, Block::Data(pattern(9, 512))),
        ];
        let built = builder.build(&blocks);
        both_read(&built.bytes, &builder.disk(&blocks));
        assert_eq!(bench.refusal(&built.bytes), None);
    }
}

#[test]
fn sectors_of_4096_bytes_are_read() {
    let builder = Builder {
        sector: 4096,
        block: 2 << 20,
        ..Builder::new((9 << 20) + 4096)
    };
    let blocks = [
        (4, Block::Data(pattern(4, 2 << 20))),
        (0, Block::Data(pattern(1, 2 << 20))),
    ];
    let built = builder.build(&blocks);
    both_read(&built.bytes, &builder.disk(&blocks));
}
