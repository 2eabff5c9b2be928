//! What is changed: valid images of every format, by `qemu-img` and from the fuzz targets' seeds, which are
//! built byte by byte where QEMU does not write a kind.

use std::path::Path;

use longshore_image::Format;
use longshore_image::vhd::SizeRule;
use longshore_tests::data;

use super::oracle::Oracle;
use super::ours::bodies;

/// The files of an image by name; the first is the one that is opened.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// Every image's first file.
pub(crate) const IMAGE: &str = "image";

#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) name: &'static str,
    pub(crate) files: Files,
}

/// A format and its seeds.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) qemu: &'static str,
    pub(crate) format: Format,
    pub(crate) seeds: Vec<Seed>,
}

impl Kind {
    /// Makes the same number another case in another format.
    pub(crate) fn salt(&self) -> u64 {
        self.qemu.bytes().fold(7, |salt: u64, byte| {
            salt.wrapping_mul(257) ^ u64::from(byte)
        })
    }
}

/// A disk with every kind of content; small, and one for formats whose blocks are mebibytes.
const SMALL: usize = 200 << 10;
const LARGE: usize = (5 << 20) / 2;

/// Every format.
pub(crate) fn all(oracle: &Oracle) -> Vec<Kind> {
    let kind = |qemu, format, seeds| Kind {
        qemu,
        format,
        seeds,
    };
    vec![
        kind("qcow2", Format::Qcow2, qcow2(oracle)),
        kind("vmdk", Format::Vmdk, vmdk(oracle)),
        kind("vpc", Format::Vhd(SizeRule::Creator), vhd(oracle)),
        kind("vhdx", Format::Vhdx, vhdx(oracle)),
        kind("vdi", Format::Vdi, vdi(oracle)),
        kind("qcow", Format::Qcow, qcow()),
        kind("parallels", Format::Parallels, parallels(oracle)),
    ]
}

fn qcow2(oracle: &Oracle) -> Vec<Seed> {
    let mut seeds = from_fuzz(
        "qcow2_open",
        &[
            "v3-512",
            "v2-4k",
            "zlib-4k",
            "zlib-v2-512",
            "zstd-4k",
            "extended-16k",
            "lazy-2k",
            "empty",
            "metadata",
            "resized",
            "snapshot",
            "subclusters",
            "backed",
        ],
    );
    let made = [
        ("64k", ""),
        ("64k-zlib", "-c"),
        ("data-file", "-o data_file=data"),
        ("data-file-raw", "-o data_file=data,data_file_raw=on"),
    ];
    seeds.extend(made.map(|(name, options)| make(oracle, name, SMALL, "qcow2", options)));
    seeds
}

fn vmdk(oracle: &Oracle) -> Vec<Seed> {
    let mut seeds = from_fuzz("vmdk_open", &["cowd", "sparse", "stream", "empty"]);
    for name in ["flat", "cowd", "sparse", "sesparse", "parents", "stream"] {
        let file = from_fuzz("vmdk_files", &[name]).remove(0);
        let bytes = &file.files[0].1;
        let end = bytes.iter().position(|&b| b == 0).unwrap();
        let (descriptor, rest) = (&bytes[..end], &bytes[end + 1..]);
        let text = String::from_utf8_lossy(descriptor).into_owned();
        let mut files = vec![(IMAGE.to_owned(), descriptor.to_vec())];
        for extent in ["a", "b", "a b"] {
            if text.contains(&format!("\"{extent}\"")) {
                files.push((extent.to_owned(), rest.to_vec()));
            }
        }
        seeds.push(Seed { files, ..file });
    }
    for subformat in [
        "monolithicSparse",
        "streamOptimized",
        "twoGbMaxExtentSparse",
        "monolithicFlat",
        "twoGbMaxExtentFlat",
    ] {
        let options = format!("-o subformat={subformat}");
        seeds.push(make(oracle, subformat, SMALL, "vmdk", &options));
    }
    seeds
}

fn vhd(oracle: &Oracle) -> Vec<Seed> {
    let mut seeds = from_fuzz(
        "vhd",
        &[
            "dynamic",
            "geometry",
            "fixed",
            "fixed-size",
            "small-fixed",
            "locator",
            "empty",
        ],
    );
    let made = [
        ("qemu-dynamic", "-o force_size=on"),
        ("qemu-geometry", ""),
        ("qemu-fixed", "-o subformat=fixed"),
    ];
    seeds.extend(made.map(|(name, options)| make(oracle, name, LARGE, "vpc", options)));
    seeds
}

fn vhdx(oracle: &Oracle) -> Vec<Seed> {
    let mut seeds = from_fuzz(
        "vhdx",
        &["dynamic", "sectors-4096", "fixed", "empty", "log"],
    );
    for seed in &mut seeds {
        let packed = &seed.files[0].1;
        seed.files[0].1 = bodies::vhdx_file(packed).unwrap();
    }
    let made = [
        ("qemu-dynamic", "-o block_size=1M"),
        ("qemu-zero", "-o block_size=1M,block_state_zero=off"),
        ("qemu-fixed", "-o subformat=fixed,block_size=2M"),
    ];
    seeds.extend(made.map(|(name, options)| make(oracle, name, LARGE, "vhdx", options)));
    seeds
}

fn vdi(oracle: &Oracle) -> Vec<Seed> {
    let mut seeds = from_fuzz("vdi", &["dynamic", "static", "empty", "odd", "unaligned"]);
    let made = [("qemu-dynamic", ""), ("qemu-static", "-o static=on")];
    seeds.extend(made.map(|(name, options)| make(oracle, name, LARGE, "vdi", options)));
    seeds
}

fn qcow() -> Vec<Seed> {
    from_fuzz("qcow_open", &["plain", "zlib", "empty", "backed"])
}

fn parallels(oracle: &Oracle) -> Vec<Seed> {
    let mut seeds = from_fuzz(
        "parallels_open",
        &["4k", "64k", "empty", "rewritten", "old"],
    );
    seeds.push(make(oracle, "1m", LARGE, "parallels", ""));
    seeds
}

fn from_fuzz(target: &str, names: &[&'static str]) -> Vec<Seed> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let read = |name: &'static str| {
        let bytes = std::fs::read(home.join(target).join(name)).unwrap();
        let mut files = vec![(IMAGE.to_owned(), bytes)];
        if name == "backed" {
            // Shorter than the image: what is behind its end reads as zeros.
            files.push(("base".to_owned(), data::disk(SMALL - 1024, 3)));
        }
        Seed { name, files }
    };
    names.iter().map(|name| read(name)).collect()
}

/// What `qemu-img convert` makes of a disk.
fn make(oracle: &Oracle, name: &'static str, len: usize, format: &str, options: &str) -> Seed {
    oracle.write(&vec![("in.raw".to_owned(), data::disk(len, 7))]);
    oracle.make(&format!(
        "qemu-img convert -f raw -O {format} {options} in.raw {IMAGE}"
    ));
    let image = (
        IMAGE.to_owned(),
        std::fs::read(oracle.dir().join(IMAGE)).unwrap(),
    );
    let mut files = vec![image];
    for entry in std::fs::read_dir(oracle.dir()).unwrap() {
        let entry = entry.unwrap();
        let found = entry.file_name().into_string().unwrap();
        if found != IMAGE && found != "in.raw" {
            files.push((found, std::fs::read(entry.path()).unwrap()));
        }
    }
    Seed { name, files }
}
