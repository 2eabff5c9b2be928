//! Walks over tables: bytes of tables a second, from a file in the page cache. No data is read.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use longshore_image::Format;
use longshore_image::vhd::SizeRule;
use longshore_micro::{CLUSTER, image, qemu_img};

const GIB: u64 = 1 << 30;

/// How an image with many entries and little data is made.
#[derive(Clone, Copy)]
enum Made {
    /// `qemu-img create` with these options.
    Created(&'static [&'static str]),
    /// `qemu-img convert` with these options, of a disk with a page of data in each cluster.
    Converted(&'static [&'static str]),
}

struct Walk {
    name: &'static str,
    format: Format,
    made: Made,
    virtual_size: u64,
    /// Guest bytes that one entry of the table stands for, and the entry's own.
    each: u64,
    entry: u64,
}

const COMPRESSED: u64 = 2 * GIB;

fn walks() -> [Walk; 7] {
    [
        Walk {
            name: "qcow2 L2, all allocated",
            format: Format::Qcow2,
            made: Made::Created(&["-f", "qcow2", "-o", "preallocation=metadata"]),
            virtual_size: 64 * GIB,
            each: CLUSTER as u64,
            entry: 8,
        },
        Walk {
            name: "qcow2 L2, all compressed",
            format: Format::Qcow2,
            made: Made::Converted(&["-O", "qcow2", "-c"]),
            virtual_size: COMPRESSED,
            each: CLUSTER as u64,
            entry: 8,
        },
        Walk {
            name: "qcow2 L1, empty",
            format: Format::Qcow2,
            made: Made::Created(&["-f", "qcow2"]),
            virtual_size: 8 << 40,
            each: 512 << 20,
            entry: 8,
        },
        Walk {
            name: "vmdk grain tables, all compressed",
            format: Format::Vmdk,
            made: Made::Converted(&["-O", "vmdk", "-o", "subformat=streamOptimized"]),
            virtual_size: COMPRESSED,
            each: CLUSTER as u64,
            entry: 4,
        },
        Walk {
            name: "vhdx BAT, empty",
            format: Format::Vhdx,
            made: Made::Created(&["-f", "vhdx", "-o", "block_size=1M"]),
            virtual_size: 4 << 40,
            each: 1 << 20,
            entry: 8,
        },
        Walk {
            name: "vhd BAT, empty",
            format: Format::Vhd(SizeRule::Creator),
            made: Made::Created(&["-f", "vpc", "-o", "force_size=on"]),
            virtual_size: 1 << 40,
            each: 2 << 20,
            entry: 4,
        },
        Walk {
            name: "vdi map, static",
            format: Format::Vdi,
            made: Made::Created(&["-f", "vdi", "-o", "static=on"]),
            virtual_size: 64 * GIB,
            each: 1 << 20,
            entry: 4,
        },
    ]
}

/// A page of text in each cluster: every table entry is used, and the image stays small.
fn dotted(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path)?;
    file.set_len(COMPRESSED)?;
    for cluster in 0..COMPRESSED / CLUSTER as u64 {
        file.write_all_at(&cluster.to_le_bytes(), cluster * CLUSTER as u64)?;
    }
    Ok(())
}

fn make(walk: &Walk, index: usize, folder: &Path, raw: &Path) -> PathBuf {
    let path = folder.join(format!("{index}.image"));
    let (file, size) = (path.to_string_lossy(), walk.virtual_size.to_string());
    let raw = raw.to_string_lossy();
    let args: Vec<&str> = match walk.made {
        Made::Created(options) => [&["create", "-q"], options, &[&*file, &*size]].concat(),
        Made::Converted(options) => [&["convert", "-f", "raw"], options, &[&*raw, &*file]].concat(),
    };
    qemu_img(&args).expect("qemu-img makes the image");
    path
}

fn tables(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("there is room for images");
    let raw = folder.path().join("disk.raw");
    dotted(&raw).expect("there is room for a sparse disk");
    let mut group = c.benchmark_group("walk");
    group.sample_size(20);
    for (index, walk) in walks().iter().enumerate() {
        let path = make(walk, index, folder.path(), &raw);
        let image = image(walk.format, &path).expect("qemu-img's image opens");
        let entries = image.virtual_size() / walk.each;
        group.throughput(Throughput::Bytes(entries * walk.entry));
        group.bench_function(walk.name, |b| {
            b.iter(|| {
                let extents = image.extents(0..image.virtual_size());
                let count = extents.map(|extent| extent.expect("its tables are whole"));
                black_box(count.count())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tables);
criterion_main!(benches);
