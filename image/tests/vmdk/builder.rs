//! VMDKs made byte by byte, as VMware, `VirtualBox` and QEMU lay them out; tests then spoil them.

use std::collections::BTreeMap;
use std::io::Write;

pub(crate) const SECTOR: usize = 512;
/// Small grains make small tests; real tools write 128.
pub(crate) const GRAIN_SECTORS: u64 = 16;
pub(crate) const GD_AT_END: u64 = u64::MAX;

/// Where the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// Each behind its grains, the directory and a footer at the end (VMware, `VirtualBox`).
    Behind,
    /// In front, twice; grains until the file ends (QEMU).
    Front,
    /// In front, with an end mark (open-vmdk).
    FrontWithEnd,
}

#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    pub(crate) gtes: u32,
    pub(crate) version: u32,
    pub(crate) flags: u32,
    pub(crate) overhead: u64,
    pub(crate) tables: Tables,
    pub(crate) descriptor: String,
}

/// An image and where its parts are, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    /// Grain tables by number.
    pub(crate) tables: BTreeMap<u64, usize>,
    /// Redundant grain tables by number.
    pub(crate) copies: BTreeMap<u64, usize>,
    pub(crate) directory: usize,
    pub(crate) directory_copy: usize,
    /// Grains (their markers) by disk sector.
    pub(crate) grains: BTreeMap<u64, usize>,
    /// The footer itself, if there is one.
    pub(crate) footer: Option<usize>,
}

pub(crate) const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
    createType=\"TYPE\"\n\n# Extent description\nRW 1024 SPARSE \"disk.vmdk\"\n\n#DDB\nddb.adapterType = \"lsilogic\"\n";

impl Builder {
    /// A stream as VMware writes it.
    pub(crate) fn stream(capacity: u64) -> Self {
        Self {
            capacity,
            grain: GRAIN_SECTORS,
            gtes: 512,
            version: 3,
            flags: 0x3_0001,
            overhead: 128,
            tables: Tables::Behind,
            descriptor: DESCRIPTOR.replace("TYPE", "streamOptimized"),
        }
    }

    /// A monolithicSparse image as QEMU writes it.
    pub(crate) fn sparse(capacity: u64) -> Self {
        Self {
            version: 1,
            flags: 3,
            tables: Tables::Front,
            descriptor: DESCRIPTOR.replace("TYPE", "monolithicSparse"),
            ..Self::stream(capacity)
        }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.flags & 0x1_0000 != 0
    }

    fn table_count(&self) -> u64 {
        self.capacity.div_ceil(self.grain * u64::from(self.gtes))
    }

    fn table_len(&self) -> usize {
        (self.gtes as usize * 4).next_multiple_of(SECTOR)
    }

    fn header(&self, gd: u64, rgd: u64, overhead: u64) -> Vec<u8> {
        let mut h = Vec::new();
        h.extend_from_slice(b"KDMV");
        h.extend_from_slice(&self.version.to_le_bytes());
        h.extend_from_slice(&self.flags.to_le_bytes());
        h.extend_from_slice(&self.capacity.to_le_bytes());
        h.extend_from_slice(&self.grain.to_le_bytes());
        h.extend_from_slice(&1_u64.to_le_bytes());
        h.extend_from_slice(&20_u64.to_le_bytes());
        h.extend_from_slice(&self.gtes.to_le_bytes());
        h.extend_from_slice(&rgd.to_le_bytes());
        h.extend_from_slice(&gd.to_le_bytes());
        h.extend_from_slice(&overhead.to_le_bytes());
        h.push(0);
        h.extend_from_slice(b"\n \r\n");
        h.extend_from_slice(&u16::from(self.is_stream()).to_le_bytes());
        h.resize(SECTOR, 0);
        h
    }

    /// The image with these grains (disk sector, bytes), written in this order.
    pub(crate) fn build(&self, grains: &[(u64, Vec<u8>)]) -> Built {
        let mut built = Built {
            bytes: vec![0; 21 * SECTOR],
            tables: BTreeMap::new(),
            copies: BTreeMap::new(),
            directory: 0,
            directory_copy: 0,
            grains: BTreeMap::new(),
            footer: None,
        };
        built.bytes[SECTOR..SECTOR + self.descriptor.len()]
            .copy_from_slice(self.descriptor.as_bytes());
        match self.tables {
            Tables::Behind => self.build_behind(&mut built, grains),
            Tables::Front | Tables::FrontWithEnd => self.build_front(&mut built, grains),
        }
        built
    }

    fn build_behind(&self, built: &mut Built, grains: &[(u64, Vec<u8>)]) {
        let header = self.header(GD_AT_END, 0, self.overhead);
        built.bytes[..SECTOR].copy_from_slice(&header);
        built.bytes.resize(self.overhead as usize * SECTOR, 0);
        let table_of = |lba: u64| lba / self.grain / u64::from(self.gtes);
        for (i, (lba, data)) in grains.iter().enumerate() {
            self.put_grain(built, *lba, data);
            let table = table_of(*lba);
            // As soon as no grain of it comes any more.
            if !grains[i + 1..].iter().any(|g| table_of(g.0) == table) {
                put_marker(&mut built.bytes, (self.table_len() / SECTOR) as u64, 1);
                let at = built.bytes.len();
                built.tables.insert(table, at);
                let bytes = self.table(table, built);
                built.bytes.extend_from_slice(&bytes);
            }
        }
        let directory = self.directory(&built.tables);
        put_marker(&mut built.bytes, (directory.len() / SECTOR) as u64, 2);
        built.directory = built.bytes.len();
        built.directory_copy = built.directory;
        built.bytes.extend_from_slice(&directory);
        put_marker(&mut built.bytes, 1, 3);
        built.footer = Some(built.bytes.len());
        let gd = (built.directory / SECTOR) as u64;
        built
            .bytes
            .extend_from_slice(&self.header(gd, 0, self.overhead));
        put_marker(&mut built.bytes, 0, 0);
    }

    fn build_front(&self, built: &mut Built, grains: &[(u64, Vec<u8>)]) {
        let count = self.table_count();
        let directory_len = (count as usize * 4).next_multiple_of(SECTOR);
        let mut at = built.bytes.len();
        let mut place = |tables: &mut BTreeMap<u64, usize>| {
            let directory = at;
            at += directory_len;
            for table in 0..count {
                tables.insert(table, at);
                at += self.table_len();
            }
            directory
        };
        built.directory_copy = place(&mut built.copies);
        built.directory = place(&mut built.tables);
        let start = at.next_multiple_of(self.grain as usize * SECTOR);
        built.bytes.resize(start, 0);
        let header = self.header(
            (built.directory / SECTOR) as u64,
            (built.directory_copy / SECTOR) as u64,
            (start / SECTOR) as u64,
        );
        built.bytes[..SECTOR].copy_from_slice(&header);
        for (lba, data) in grains {
            self.put_grain(built, *lba, data);
        }
        for (directory, tables) in [
            (built.directory, built.tables.clone()),
            (built.directory_copy, built.copies.clone()),
        ] {
            let bytes = self.directory(&tables);
            built.bytes[directory..directory + bytes.len()].copy_from_slice(&bytes);
            for (&table, &at) in &tables {
                let bytes = self.table(table, built);
                built.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        if self.tables == Tables::FrontWithEnd {
            put_marker(&mut built.bytes, 0, 0);
        }
    }

    fn put_grain(&self, built: &mut Built, lba: u64, data: &[u8]) {
        built.grains.insert(lba, built.bytes.len());
        if self.is_stream() {
            let packed = zlib(data);
            built.bytes.extend_from_slice(&lba.to_le_bytes());
            built
                .bytes
                .extend_from_slice(&(packed.len() as u32).to_le_bytes());
            built.bytes.extend_from_slice(&packed);
        } else {
            let mut data = data.to_vec();
            data.resize(self.grain as usize * SECTOR, 0);
            built.bytes.extend_from_slice(&data);
        }
        let padded = built.bytes.len().next_multiple_of(SECTOR);
        built.bytes.resize(padded, 0);
    }

    fn table(&self, table: u64, built: &Built) -> Vec<u8> {
        let mut bytes = vec![0; self.table_len()];
        for entry in 0..u64::from(self.gtes) {
            let lba = (table * u64::from(self.gtes) + entry) * self.grain;
            if let Some(&at) = built.grains.get(&lba) {
                put32(&mut bytes, entry as usize * 4, (at / SECTOR) as u32);
            }
        }
        bytes
    }

    fn directory(&self, tables: &BTreeMap<u64, usize>) -> Vec<u8> {
        let mut bytes = vec![0; (self.table_count() as usize * 4).next_multiple_of(SECTOR)];
        for (&table, &at) in tables {
            put32(&mut bytes, table as usize * 4, (at / SECTOR) as u32);
        }
        bytes
    }
}

pub(crate) fn zlib(data: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(data).unwrap();
    e.finish().unwrap()
}

pub(crate) fn put_marker(bytes: &mut Vec<u8>, value: u64, kind: u32) {
    let at = bytes.len();
    bytes.resize(at + SECTOR, 0);
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put32(bytes, at + 12, kind);
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Bytes of a disk: a mixture of what compresses and what does not.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 4096);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if x & 0x30 == 0 {
            for _ in 0..512 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((x >> 33) as u8);
            }
        } else {
            bytes.extend(std::iter::repeat_n(x as u8, 512));
        }
    }
    bytes.truncate(len);
    bytes
}
