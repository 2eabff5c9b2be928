//! Fields of all formats but VMDK. Offsets are those of each format's specification.

use super::fields::Finder;

/// Of a qcow2 table's entry, the place it names.
const OFFSET: usize = 0x00ff_ffff_ffff_fe00;

pub(crate) fn qcow2(f: &mut Finder) {
    f.header(
        0,
        &[
            ("version", 4, 4),
            ("backing_file_offset", 8, 8),
            ("backing_file_size", 16, 4),
            ("cluster_bits", 20, 4),
            ("size", 24, 8),
            ("crypt_method", 32, 4),
            ("l1_size", 36, 4),
            ("l1_table_offset", 40, 8),
            ("refcount_table_offset", 48, 8),
            ("refcount_table_clusters", 56, 4),
            ("nb_snapshots", 60, 4),
            ("snapshots_offset", 64, 8),
        ],
    );
    let bits = f.number(20, 4).clamp(9, 21);
    let (cluster, mut extended) = (1_usize << bits, false);
    let mut extension = 72;
    if f.number(4, 4) == 3 {
        f.header(
            72,
            &[
                ("incompatible_features", 0, 8),
                ("compatible_features", 8, 8),
                ("autoclear_features", 16, 8),
                ("refcount_order", 24, 4),
                ("header_length", 28, 4),
                ("compression_type", 32, 1),
            ],
        );
        extended = f.number(72, 8) & 16 != 0;
        extension = f.number(100, 4);
    }
    for _ in 0..6 {
        f.field("extension type", extension, 4);
        f.field("extension length", extension + 4, 4);
        if f.number(extension, 4) == 0 {
            break;
        }
        f.field("extension data", extension + 8, 1);
        extension += 8 + f.number(extension + 4, 4).next_multiple_of(8);
    }
    let l1 = f.table("L1 entry", f.number(40, 8), f.number(36, 4), 8);
    for table in l1
        .into_iter()
        .map(|entry| entry & OFFSET)
        .filter(|&at| at != 0)
    {
        let entries = if extended {
            for n in 0..12 {
                f.field("L2 entry", table + 16 * n, 8);
                f.field("subclusters", table + 16 * n + 8, 8);
            }
            Vec::new()
        } else {
            f.table("L2 entry", table, cluster / 8, 8)
        };
        for entry in entries.into_iter().filter(|entry| entry >> 62 & 1 == 1) {
            let at = entry & ((1 << (62 - (bits - 8))) - 1);
            f.field("compressed data", at, 1);
            f.field("compressed data", at + 9, 2);
        }
    }
    let refcounts = f.table("refcount table entry", f.number(48, 8), 8, 8);
    for block in refcounts.into_iter().filter(|&at| at != 0) {
        f.table("refcount", block & OFFSET, 16, 2);
    }
}

pub(crate) fn qcow(f: &mut Finder) {
    f.header(
        0,
        &[
            ("version", 4, 4),
            ("backing_file_offset", 8, 8),
            ("backing_file_size", 16, 4),
            ("mtime", 20, 4),
            ("size", 24, 8),
            ("cluster_bits", 32, 1),
            ("l2_bits", 33, 1),
            ("crypt_method", 36, 4),
            ("l1_table_offset", 40, 8),
        ],
    );
    let (cluster_bits, l2_bits) = (f.number(32, 1), f.number(33, 1));
    let count = f
        .number(24, 8)
        .div_ceil(1 << (cluster_bits + l2_bits).min(40));
    for table in f.table("L1 entry", f.number(40, 8), count, 8) {
        if table == 0 {
            continue;
        }
        for entry in f.table("L2 entry", table, 1 << l2_bits.min(12), 8) {
            if entry >> 63 == 1 {
                let at = entry & ((1 << (63 - cluster_bits.min(20))) - 1);
                f.field("compressed data", at, 1);
                f.field("compressed data", at + 9, 2);
            }
        }
    }
}

const VHD_FOOTER: &[(&str, usize, usize)] = &[
    ("cookie", 0, 1),
    ("features", 8, 4),
    ("file format version", 12, 4),
    ("data offset", 16, 8),
    ("creator application", 28, 4),
    ("creator version", 32, 4),
    ("original size", 40, 8),
    ("current size", 48, 8),
    ("cylinders", 56, 2),
    ("heads", 58, 1),
    ("sectors", 59, 1),
    ("disk type", 60, 4),
    ("unique id", 68, 4),
    ("saved state", 84, 1),
];

pub(crate) fn vhd(f: &mut Finder) {
    let end = f.bytes.len() - 512;
    f.header(end, VHD_FOOTER);
    if f.number(60 + end, 4) == 2 {
        return;
    }
    f.header(0, VHD_FOOTER);
    let header = f.number(16, 8);
    f.header(
        header,
        &[
            ("header cookie", 0, 1),
            ("header data offset", 8, 8),
            ("table offset", 16, 8),
            ("header version", 24, 4),
            ("max table entries", 28, 4),
            ("block size", 32, 4),
            ("parent unique id", 40, 4),
            ("parent time stamp", 56, 4),
            ("parent name", 64, 2),
            ("parent locator", 576, 4),
        ],
    );
    let table = f.number(header + 16, 8);
    let entries = f.table("BAT entry", table, f.number(header + 28, 4), 4);
    for entry in entries.into_iter().filter(|&entry| entry < 1 << 24) {
        f.field("sector bitmap", entry * 512, 2);
    }
}

pub(crate) fn vdi(f: &mut Finder) {
    f.header(
        0,
        &[
            ("signature", 64, 4),
            ("version", 68, 4),
            ("header size", 72, 4),
            ("image type", 76, 4),
            ("image flags", 80, 4),
            ("offset of blocks", 340, 4),
            ("offset of data", 344, 4),
            ("cylinders", 348, 4),
            ("sector size", 360, 4),
            ("disk size", 368, 8),
            ("block size", 376, 4),
            ("block extra", 380, 4),
            ("blocks", 384, 4),
            ("blocks allocated", 388, 4),
            ("uuid", 392, 4),
            ("last snapshot uuid", 408, 4),
            ("link uuid", 424, 4),
            ("parent uuid", 440, 4),
        ],
    );
    f.table("map entry", f.number(340, 4), f.number(384, 4), 4);
}

pub(crate) fn parallels(f: &mut Finder) {
    f.header(
        0,
        &[
            ("magic", 0, 1),
            ("version", 16, 4),
            ("heads", 20, 4),
            ("cylinders", 24, 4),
            ("tracks", 28, 4),
            ("bat_entries", 32, 4),
            ("nb_sectors", 36, 8),
            ("inuse", 44, 4),
            ("data_off", 48, 4),
            ("flags", 52, 4),
            ("ext_off", 56, 8),
        ],
    );
    f.table("BAT entry", 64, f.number(32, 4), 4);
}

/// The region of the block allocation table, the first bytes of its identifier.
const VHDX_BAT: usize = 0x2dc2_7766;
const VHDX_METADATA: usize = 0x8b7c_a206;

pub(crate) fn vhdx(f: &mut Finder) {
    for header in [64 << 10, 128 << 10] {
        f.header(
            header,
            &[
                ("signature", 0, 1),
                ("sequence number", 8, 8),
                ("file write guid", 16, 4),
                ("data write guid", 32, 4),
                ("log guid", 48, 8),
                ("log version", 64, 2),
                ("version", 66, 2),
                ("log length", 68, 4),
                ("log offset", 72, 8),
            ],
        );
    }
    for table in [192 << 10, 256 << 10] {
        f.field("region count", table + 8, 4);
        for region in 0..f.number(table + 8, 4).min(4) {
            let at = table + 16 + 32 * region;
            f.header(
                at,
                &[
                    ("region guid", 0, 4),
                    ("region offset", 16, 8),
                    ("region length", 24, 4),
                    ("region required", 28, 4),
                ],
            );
            let (guid, start) = (f.number(at, 4), f.number(at + 16, 8));
            match guid {
                VHDX_BAT => drop(f.table("BAT entry", start, 40, 8)),
                VHDX_METADATA => vhdx_metadata(f, start),
                _ => {}
            }
        }
    }
    vhdx_log(f, f.number((64 << 10) + 72, 8));
}

fn vhdx_metadata(f: &mut Finder, start: usize) {
    f.field("metadata signature", start, 1);
    f.field("metadata count", start + 10, 2);
    for item in 0..f.number(start + 10, 2).min(8) {
        let at = start + 32 + 32 * item;
        f.header(
            at,
            &[
                ("item guid", 0, 4),
                ("item offset", 16, 4),
                ("item length", 20, 4),
                ("item flags", 24, 4),
            ],
        );
        let place = start + f.number(at + 16, 4);
        match f.number(at + 20, 4) {
            4 => f.field("sector size", place, 4),
            8 => {
                f.field("block size or size", place, 4);
                f.field("flags or size", place + 4, 4);
                f.field("size", place, 8);
            }
            _ => f.field("disk id", place, 4),
        }
    }
}

fn vhdx_log(f: &mut Finder, log: usize) {
    for page in 0..64 {
        let at = log + 4096 * page;
        if !f.bytes.get(at..).is_some_and(|b| b.starts_with(b"loge")) {
            continue;
        }
        f.header(
            at,
            &[
                ("log entry length", 8, 4),
                ("log tail", 12, 4),
                ("log sequence number", 16, 8),
                ("log descriptors", 24, 4),
                ("log entry guid", 32, 4),
                ("flushed file offset", 48, 8),
                ("last file offset", 56, 8),
            ],
        );
        for descriptor in 0..f.number(at + 24, 4).min(8) {
            f.header(
                at + 64 + 32 * descriptor,
                &[
                    ("descriptor signature", 0, 1),
                    ("descriptor length", 8, 8),
                    ("descriptor offset", 16, 8),
                    ("descriptor sequence", 24, 8),
                ],
            );
        }
    }
}
