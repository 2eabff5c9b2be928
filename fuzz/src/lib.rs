//! What each fuzz target does with its input.
//!
//! Plain functions that panic when something is wrong, so that `image/tests/regressions.rs` replays
//! every file in `seeds/` and `regressions/` in an ordinary `cargo test`; it takes this file in by its
//! path. An input is an image or stream and nothing else: whatever else varies (chunks, memory, side
//! reads) is drawn from [`Dice`], which the input's checksum throws.

mod dice;
mod forward;
mod nbd;
pub mod random;
mod stream;
mod vhdx;

use std::sync::Arc;

use longshore_image::vhd::SizeRule;
use longshore_image::{ErrorKind, Format, Probe, TAIL_LEN, probe, probe_tail};

use self::dice::Dice;
pub use self::nbd::nbd_replies;
pub use self::stream::stream;
pub use self::vhdx::{unpack as vhdx_file, vhdx};

/// What a target does with its input.
pub type Body = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Body)] = &[
    ("agree", agree),
    ("nbd_replies", nbd_replies),
    ("parallels_forward", parallels_forward),
    ("parallels_open", parallels_open),
    ("qcow2_forward", qcow2_forward),
    ("qcow2_open", qcow2_open),
    ("qcow_forward", qcow_forward),
    ("qcow_open", qcow_open),
    ("stream", stream),
    ("vdi", vdi),
    ("vhd", vhd),
    ("vmdk_files", vmdk_files),
    ("vhdx", vhdx),
    ("vmdk_forward", vmdk_forward),
    ("vmdk_open", vmdk_open),
];

/// Memory for tables, in bytes.
const TABLE_BYTES: u64 = 2 << 20;

/// Bytes of the disk that are looked at. Every one of them is paid for, several times over: a size is soon
/// changed to a large one.
fn disk_bytes(format: Format) -> u64 {
    match format {
        // Blocks of 1 MiB at least.
        Format::Vhdx => 3 << 20,
        _ => 1 << 20,
    }
}

/// Files are mebibytes at times: every reader has the same one.
type File = Arc<Vec<u8>>;

fn shared(data: &[u8]) -> File {
    Arc::new(data.to_vec())
}

/// Random access to a qcow2 image.
pub fn qcow2_open(data: &[u8]) {
    random::open(Format::Qcow2, &shared(data));
}

/// Random access to a VMDK.
pub fn vmdk_open(data: &[u8]) {
    random::open(Format::Vmdk, &shared(data));
}

/// A VMDK of several files: a descriptor, a NUL, and behind that the bytes of every extent it names.
pub fn vmdk_files(data: &[u8]) {
    random::open_files(data);
}

/// Random access to a qcow image.
pub fn qcow_open(data: &[u8]) {
    random::open(Format::Qcow, &shared(data));
}

/// A qcow image as a stream.
pub fn qcow_forward(data: &[u8]) {
    let _ = forward::read(Format::Qcow, &shared(data), &mut Dice::new(data));
}

/// Random access to a Parallels disk.
pub fn parallels_open(data: &[u8]) {
    random::open(Format::Parallels, &shared(data));
}

/// A Parallels disk as a stream.
pub fn parallels_forward(data: &[u8]) {
    let _ = forward::read(Format::Parallels, &shared(data), &mut Dice::new(data));
}

/// A qcow2 image as a stream.
pub fn qcow2_forward(data: &[u8]) {
    let _ = forward::read(Format::Qcow2, &shared(data), &mut Dice::new(data));
}

/// A VMDK as a stream.
pub fn vmdk_forward(data: &[u8]) {
    let _ = forward::read(Format::Vmdk, &shared(data), &mut Dice::new(data));
}

/// A VDI by every way: random access, streams, and whether they agree.
pub fn vdi(data: &[u8]) {
    every_way(Format::Vdi, &shared(data));
}

/// A VHD by every way, fixed ones and those with a forced size too.
pub fn vhd(data: &[u8]) {
    let rules = [SizeRule::Creator, SizeRule::Geometry, SizeRule::CurrentSize];
    let format = Format::Vhd(rules[Dice::new(data).roll(3)]);
    every_way(format, &shared(data));
    forward::probed(data, &mut Dice::new(data));
    // Few inputs have checksums that are right; with these corrected, what they say counts.
    let sealed = sealed(data);
    if sealed != data {
        every_way(format, &shared(&sealed));
        forward::probed(&sealed, &mut Dice::new(data));
    }
}

/// A VHD with the checksums of its footers and its header right.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut sealed = data.to_vec();
    let end = data.len().saturating_sub(TAIL_LEN);
    for (at, len, field) in [(0, 512, 64), (512, 1024, 36), (end, 512, 64)] {
        let Some(part) = sealed.get_mut(at..at + len) else {
            continue;
        };
        if part.starts_with(b"conectix") || part.starts_with(b"cxsparse") {
            part[field..field + 4].fill(0);
            let sum = part.iter().fold(0_u32, |sum, &byte| sum + u32::from(byte));
            part[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
        }
    }
    sealed
}

fn every_way(format: Format, file: &File) {
    random::open(format, file);
    let _ = forward::read(format, file, &mut Dice::new(file));
    as_format(format, file);
}

/// Random access and every way through the stream give the same bytes, where they give any; and the
/// stream gives them whenever random access does, if everything helps it. (Not streamOptimized: its
/// stream explains itself, and is refused where its tables say otherwise.)
pub fn agree(data: &[u8]) {
    both_ways(&shared(data));
}

/// Random access and the stream both gave the whole disk.
pub fn both_ways(data: &File) -> bool {
    let tail = &data[data.len().saturating_sub(TAIL_LEN)..];
    let found = match probe(data) {
        Probe::Image(Format::Raw) => probe_tail(tail, u64::try_from(data.len()).unwrap()),
        Probe::Image(format) => Some(format),
        _ => None,
    };
    found.is_some_and(|format| as_format(format, data))
}

/// The same of an image that is of this format.
pub fn as_format(format: Format, file: &File) -> bool {
    let mut dice = Dice::new(file);
    let random = random::read(format, file);
    let helped = forward::read_with_help(format, file, &mut dice);
    if let (Some(disk), Err(e)) = (&random, &helped) {
        let refused = matches!(e.kind(), ErrorKind::LimitExceeded | ErrorKind::Unsupported);
        assert!(
            refused || disk.variant == "streamOptimized",
            "only random access reads this: {e:?}"
        );
    }
    let random = random.map(|disk| disk.bytes);
    let streams = [
        helped.ok().flatten(),
        forward::read(format, file, &mut dice),
        forward::read(format, file, &mut dice),
    ];
    let disks: Vec<&Vec<u8>> = streams.iter().chain([&random]).flatten().collect();
    for pair in disks.windows(2) {
        if pair[0] == pair[1] {
            continue;
        }
        assert!(pair[0].len() == pair[1].len(), "disks differ in size");
        let differs = pair[0].iter().zip(pair[1]).position(|(a, b)| a != b);
        assert!(differs.is_none(), "disks differ at {differs:x?}");
    }
    random.is_some() && streams.iter().any(Option::is_some)
}
