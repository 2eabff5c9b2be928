//! Disks of several files, read as qemu-img reads them where it reads them at all.

use std::sync::Arc;

use longshore_image::{Compression, Limits, ReferenceKind, vmdk};

use crate::builder::{Builder, GRAIN_SECTORS as G, SECTOR, Tables, pattern};
use crate::esx_builder::{SE_GRAIN, Se, cowd, sesparse};
use crate::support::{Bench, both_read, forward_fails, same};

const MIB: usize = 1 << 20;

/// A descriptor of a disk of type `kind`, with these lines for its extents.
pub(crate) fn descriptor(kind: &str, lines: &[&str]) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n\
         # Extent description\n{}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n",
        lines.join("\n")
    )
}

/// A sparse extent of a split disk: without a descriptor.
fn split(capacity: u64) -> Builder {
    Builder {
        descriptor: String::new(),
        ..Builder::sparse(capacity)
    }
}

/// Puts `data` at sector `lba` of a disk.
fn put(disk: &mut [u8], lba: u64, data: &[u8]) {
    let start = lba as usize * SECTOR;
    let end = (start + data.len()).min(disk.len());
    disk[start..end].copy_from_slice(&data[..end - start]);
}

#[test]
fn what_qemu_img_writes_in_several_files_reads_as_qemu_img_reads_it() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    let mut disk = vec![0; 5 * MIB + 3 * SECTOR];
    for (at, len) in [(0, 512), (MIB + 511, 700_000), (4 * MIB, 100_000)] {
        disk[at..at + len].copy_from_slice(&pattern(at as u64 + 1, len));
    }
    *disk.last_mut().unwrap() = 7;
    bench.write("raw", &disk);
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentSparse,zeroed_grain=on",
        "twoGbMaxExtentSparse,compat6=on",
        "monolithicFlat,hwversion=11,toolsversion=1",
        "monolithicFlat,adapter_type=lsilogic",
    ] {
        bench.img(&format!(
            "convert -f raw -O vmdk -o subformat={subformat} raw disk.vmdk"
        ));
        assert!(bench.oracle("disk.vmdk") == disk, "{subformat}");
        bench.check_files("disk.vmdk");
        let file = Arc::new(bench.read("disk.vmdk"));
        let image = vmdk::open(file, &bench.gate(), &Limits::default()).unwrap();
        let info = image.info();
        assert_eq!(Some(info.variant.as_str()), subformat.split(',').next());
        assert_eq!(info.virtual_size, disk.len() as u64);
        assert_eq!(info.references.len(), 1);
        assert_eq!(info.references[0].kind, ReferenceKind::Extent);
        assert_eq!(info.compression, Compression::None);
        forward_fails(
            &bench.read("disk.vmdk"),
            longshore_image::ErrorKind::Unsupported,
        );
    }
}

#[test]
fn extents_of_all_kinds_in_a_row_read_as_qemu_img_reads_them() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    let grain = G as usize * SECTOR;
    let hosted = split(30 * G).build(&[(0, pattern(1, grain)), (29 * G, pattern(2, grain))]);
    // QEMU would look for a footer in the descriptor.
    let stream = Builder {
        tables: Tables::Front,
        ..Builder::stream(20 * G)
    }
    .build(&[(3 * G, pattern(3, grain))]);
    let esx = cowd(40, 1, &[(5, pattern(4, 512)), (6, pattern(5, 512))]);
    let se = sesparse(80, &[(1, Se::Data(pattern(6, SE_GRAIN))), (9, Se::Zero)]);
    for (name, bytes) in [
        ("a b-s001.vmdk", &hosted.bytes),
        ("größe (2).vmdk", &stream.bytes),
        ("cowd.vmdk", &esx.bytes),
        ("se.vmdk", &se.bytes),
        ("flat.vmdk", &pattern(7, 100 * SECTOR)),
    ] {
        bench.write(name, bytes);
    }
    let lines = [
        "RW 480 SPARSE \"a b-s001.vmdk\"",
        "RW 320 SPARSE \"größe (2).vmdk\"",
        "RW 40 VMFSSPARSE \"cowd.vmdk\"",
        "RW 80 SESPARSE \"se.vmdk\"",
        "RW 60 FLAT \"flat.vmdk\" 40",
        "RW 10 VMFS \"flat.vmdk\"",
        "RW 40 SPARSE \"cowd.vmdk\"",
    ];
    bench.write(
        "disk.vmdk",
        descriptor("twoGbMaxExtentSparse", &lines).as_bytes(),
    );
    bench.check_files("disk.vmdk");
    let file = Arc::new(bench.read("disk.vmdk"));
    let image = vmdk::open(file, &bench.gate(), &Limits::default()).unwrap();
    assert_eq!(image.info().compression, Compression::Zlib);
    assert_eq!(
        image.info().references.len(),
        6,
        "neighbours are named once"
    );
    assert!(!image.best_read_forward());

    // What QEMU leaves out: read-only parts and zeros. Without access nobody reads.
    let lines = [
        "RDONLY 60 FLAT \"flat.vmdk\" 40",
        "RW 33 ZERO",
        "NOACCESS 40 VMFSSPARSE \"gone.vmdk\"",
        "RW 40 VMFSSPARSE \"cowd.vmdk\"",
    ];
    bench.write("disk.vmdk", descriptor("custom", &lines).as_bytes());
    let mut disk = vec![0; 133 * SECTOR];
    put(&mut disk, 0, &pattern(7, 100 * SECTOR)[40 * SECTOR..]);
    put(&mut disk, 98, &pattern(4, 512));
    put(&mut disk, 99, &pattern(5, 512));
    same(&bench.files("disk.vmdk").unwrap(), &disk, "custom");
}

#[test]
fn descriptors_as_products_and_people_write_them_read_as_qemu_img_reads_them() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    bench.write("x-flat.vmdk", &pattern(1, 64 * SECTOR));
    let plain = descriptor("monolithicFlat", &["RW 64 FLAT \"x-flat.vmdk\" 0"]);
    let variants = [
        plain.clone(),
        plain.replace('\n', "\r\n"),
        plain.replace("CID=12345678", "CID=00000000fffffffe"),
        plain.replace(
            "CID=12345678",
            "encoding=\"UTF-8\"\nCID=abc\nisNativeSnapshot=\"no\"",
        ),
        plain.replace("RW 64 FLAT ", "RW   64\tFLAT  "),
        plain.replace(
            "#DDB",
            "#DDB\n\nddb.longContentID = \"0123456789abcdef0123456789abcdef\"\n\
             ddb.uuid = \"60 00 C2 9f\"\nddb.comment = \"RW 1 FLAT\"\n",
        ),
        plain.replace("# Extent", "\n \n# Extent"),
        plain.clone() + &"\0".repeat(700),
        plain.replace("# Disk DescriptorFile\n", "# by hand\n \n"),
        plain.clone() + &"# more\n".repeat(5000),
    ];
    for text in variants {
        bench.write("disk.vmdk", text.as_bytes());
        bench.check_files("disk.vmdk");
    }
    // What QEMU does not take: it wants the quotes and spaces where it writes them itself.
    for text in [
        plain.replace(
            "createType=\"monolithicFlat\"",
            "createType = monolithicFlat",
        ),
        plain.replace('\n', "\r"),
        plain.replace("\" 0", "\""),
        format!("\u{feff}{plain}"),
    ] {
        bench.write("disk.vmdk", text.as_bytes());
        let found = bench
            .files("disk.vmdk")
            .unwrap_or_else(|e| panic!("{text}: {e:?}"));
        same(&found, &pattern(1, 64 * SECTOR), &text);
    }
}

#[test]
fn parents_of_several_files_read_as_qemu_img_reads_them() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    bench.write("base-flat.vmdk", &pattern(1, 800 * SECTOR));
    bench.write(
        "base.vmdk",
        descriptor("vmfs", &["RW 800 VMFS \"base-flat.vmdk\""]).as_bytes(),
    );
    let delta = |kind: &str, line: &str| {
        descriptor(kind, &[line]).replace(
            "parentCID=ffffffff",
            "parentCID=12345678\nparentFileNameHint=\"base.vmdk\"",
        )
    };
    let grains = [(0, pattern(2, 512)), (700, pattern(3, 512))];
    bench.write("a-delta.vmdk", &cowd(800, 1, &grains).bytes);
    bench.write(
        "a.vmdk",
        delta("vmfsSparse", "RW 800 VMFSSPARSE \"a-delta.vmdk\"").as_bytes(),
    );
    bench.check_files("a.vmdk");
    let grains = [
        (2, Se::Data(pattern(4, SE_GRAIN))),
        (5, Se::Zero),
        (6, Se::Unmapped),
        (99, Se::Data(pattern(5, SE_GRAIN))),
    ];
    bench.write("b-sesparse.vmdk", &sesparse(800, &grains).bytes);
    bench.write(
        "b.vmdk",
        delta("seSparse", "RW 800 SESPARSE \"b-sesparse.vmdk\"").as_bytes(),
    );
    bench.check_files("b.vmdk");
    // One more on top, embedded; and one whose parent has changed since.
    bench.img("create -q -f vmdk -b b.vmdk -F vmdk c.vmdk");
    bench.io("c.vmdk", &["write -P 9 64k 10k"]);
    bench.check_files("c.vmdk");
    let text = String::from_utf8(bench.read("b.vmdk")).unwrap();
    bench.write(
        "b.vmdk",
        text.replace("parentCID=1", "parentCID=2").as_bytes(),
    );
    let e = bench.files("b.vmdk").unwrap_err();
    assert_eq!(e.kind(), longshore_image::ErrorKind::Malformed);
}

#[test]
fn cowd_by_itself_is_read_both_ways() {
    // Two tables, grains out of order; the second table comes before the first.
    let mut grains: Vec<_> = [9000, 3, 0, 4, 9001, 8999]
        .into_iter()
        .map(|lba| (lba, pattern(lba, 512)))
        .collect();
    let mut disk = vec![0; 9002 * SECTOR];
    for (lba, data) in &grains {
        put(&mut disk, *lba, data);
    }
    both_read(&cowd(9002, 1, &grains).bytes, &disk);
    grains.clear();
    both_read(&cowd(9002, 1, &grains).bytes, &vec![0; 9002 * SECTOR]);
    let grains = [(128 * 3, pattern(1, 65536)), (128 * 4, pattern(2, 3 * 512))];
    let mut disk = vec![0; (128 * 4 + 3) * SECTOR];
    for (lba, data) in &grains {
        put(&mut disk, *lba, data);
    }
    let built = cowd(128 * 4 + 3, 128, &grains);
    both_read(&built.bytes, &disk);
    // The last grain may end where its data does.
    let cut = built.bytes.len() - 125 * SECTOR;
    both_read(&built.bytes[..cut], &disk);
}

#[test]
fn sesparse_tables_and_grains_anywhere_read_as_qemu_img_reads_them() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    let grains: Vec<(u64, Se)> = [8193, 0, 4095, 4096, 8191]
        .into_iter()
        .map(|n| (n, Se::Data(pattern(n, SE_GRAIN))))
        .chain([(1, Se::Zero), (2, Se::Unmapped)])
        .collect();
    let capacity = 8194 * 8 + 3;
    bench.write("s.vmdk", &sesparse(capacity, &grains).bytes);
    let line = format!("RW {capacity} SESPARSE \"s.vmdk\"");
    bench.write("disk.vmdk", descriptor("seSparse", &[&line]).as_bytes());
    bench.check_files("disk.vmdk");
}
