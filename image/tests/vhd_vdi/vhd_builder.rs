//! VHDs by the byte: what qemu-img does not write, and what nobody should.

use std::collections::BTreeMap;

pub(crate) const SECTOR: usize = 512;
pub(crate) const HEADER_AT: usize = 512;
pub(crate) const TABLE_AT: usize = 1536;

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Makes the checksum at `field` of the structure at `at` right.
pub(crate) fn seal(bytes: &mut [u8], at: usize, len: usize, field: usize) {
    put(bytes, at + field, &[0; 4]);
    let sum = bytes[at..at + len]
        .iter()
        .fold(0_u32, |sum, &b| sum + u32::from(b));
    put(bytes, at + field, &(!sum).to_be_bytes());
}

pub(crate) fn seal_footer(bytes: &mut [u8], at: usize) {
    seal(bytes, at, 512, 64);
}

pub(crate) fn seal_header(bytes: &mut [u8]) {
    seal(bytes, HEADER_AT, 1024, 36);
}

/// A footer.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    pub(crate) kind: u32,
    pub(crate) creator: [u8; 4],
    pub(crate) current_size: u64,
    pub(crate) geometry: (u16, u8, u8),
    pub(crate) id: [u8; 16],
}

impl Footer {
    /// A disk of `size` bytes that says so.
    pub(crate) fn new(kind: u32, size: u64) -> Self {
        Self {
            kind,
            creator: *b"win ",
            current_size: size,
            geometry: (1, 1, 1),
            id: [7; 16],
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut footer = vec![0; 512];
        put(&mut footer, 0, b"conectix");
        put(&mut footer, 8, &2_u32.to_be_bytes());
        put(&mut footer, 12, &0x1_0000_u32.to_be_bytes());
        let data_offset = if self.kind == 2 { u64::MAX } else { 512 };
        put(&mut footer, 16, &data_offset.to_be_bytes());
        put(&mut footer, 28, &self.creator);
        put(&mut footer, 36, b"Wi2k");
        put(&mut footer, 40, &self.current_size.to_be_bytes());
        put(&mut footer, 48, &self.current_size.to_be_bytes());
        put(&mut footer, 56, &self.geometry.0.to_be_bytes());
        footer[58] = self.geometry.1;
        footer[59] = self.geometry.2;
        put(&mut footer, 60, &self.kind.to_be_bytes());
        put(&mut footer, 68, &self.id);
        seal_footer(&mut footer, 0);
        footer
    }
}

/// A fixed disk.
pub(crate) fn fixed(disk: &[u8], footer: &Footer) -> Vec<u8> {
    let mut image = disk.to_vec();
    image.extend(footer.bytes());
    image
}

/// A dynamic or differencing disk.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(crate) footer: Footer,
    pub(crate) block: u32,
    /// The blocks that are there, in the order in which they are in the file: number, bytes, and which
    /// sectors the bitmap has.
    pub(crate) blocks: Vec<(u32, Vec<u8>, Vec<bool>)>,
    pub(crate) parent_id: [u8; 16],
    pub(crate) parent_name: String,
    /// Platform and name in its encoding.
    pub(crate) locators: Vec<([u8; 4], Vec<u8>)>,
    /// Sectors of nothing behind the table.
    pub(crate) gap: usize,
}

impl Builder {
    pub(crate) fn new(size: u64, block: u32) -> Self {
        Self {
            footer: Footer::new(3, size),
            block,
            blocks: Vec::new(),
            parent_id: [0; 16],
            parent_name: String::new(),
            locators: Vec::new(),
            gap: 0,
        }
    }

    /// A block of which all sectors are there.
    pub(crate) fn block(mut self, number: u32, bytes: Vec<u8>) -> Self {
        let sectors = self.block as usize / SECTOR;
        self.blocks.push((number, bytes, vec![true; sectors]));
        self
    }

    pub(crate) fn entries(&self) -> u32 {
        let size = self.footer.current_size;
        u32::try_from(size.div_ceil(u64::from(self.block))).unwrap()
    }

    pub(crate) fn bitmap_len(&self) -> usize {
        (self.block as usize / SECTOR)
            .div_ceil(8)
            .next_multiple_of(SECTOR)
    }

    /// The image, and where each block's bitmap is.
    pub(crate) fn build(&self) -> (Vec<u8>, BTreeMap<u32, usize>) {
        let footer = self.footer.bytes();
        let mut image = footer.clone();
        let mut header = vec![0; 1024];
        put(&mut header, 0, b"cxsparse");
        put(&mut header, 8, &[0xff; 8]);
        put(&mut header, 16, &(TABLE_AT as u64).to_be_bytes());
        put(&mut header, 24, &0x1_0000_u32.to_be_bytes());
        put(&mut header, 28, &self.entries().to_be_bytes());
        put(&mut header, 32, &self.block.to_be_bytes());
        put(&mut header, 40, &self.parent_id);
        let name: Vec<u8> = self
            .parent_name
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        put(&mut header, 64, &name);
        image.extend(&header);
        image.resize(image.len() + self.entries() as usize * 4, 0xff);
        image.resize(image.len().next_multiple_of(SECTOR) + self.gap * SECTOR, 0);
        for (n, (platform, name)) in self.locators.iter().enumerate() {
            let at = HEADER_AT + 576 + n * 24;
            let place = image.len() as u64;
            put(&mut image, at, platform);
            put(&mut image, at + 4, &1_u32.to_be_bytes());
            put(&mut image, at + 8, &(name.len() as u32).to_be_bytes());
            put(&mut image, at + 16, &place.to_be_bytes());
            image.extend(name);
            image.resize(image.len().next_multiple_of(SECTOR), 0);
        }
        seal_header(&mut image);
        let mut places = BTreeMap::new();
        for (number, bytes, sectors) in &self.blocks {
            let at = image.len();
            places.insert(*number, at);
            let entry = (at / SECTOR) as u32;
            put(
                &mut image,
                TABLE_AT + *number as usize * 4,
                &entry.to_be_bytes(),
            );
            let mut bitmap = vec![0; self.bitmap_len()];
            for (n, there) in sectors.iter().enumerate() {
                if *there {
                    bitmap[n / 8] |= 0x80 >> (n % 8);
                }
            }
            image.extend(bitmap);
            let mut block = bytes.clone();
            block.resize(self.block as usize, 0);
            image.extend(block);
        }
        image.extend(footer);
        (image, places)
    }

    /// What is on the disk, over `below`.
    pub(crate) fn disk(&self, below: &[u8]) -> Vec<u8> {
        let mut disk = below.to_vec();
        disk.resize(self.footer.current_size as usize / SECTOR * SECTOR, 0);
        for (number, bytes, sectors) in &self.blocks {
            let mut bytes = bytes.clone();
            bytes.resize(self.block as usize, 0);
            let start = *number as usize * self.block as usize;
            for (n, there) in sectors.iter().enumerate() {
                let at = start + n * SECTOR;
                if *there && at < disk.len() {
                    put(&mut disk, at, &bytes[n * SECTOR..(n + 1) * SECTOR]);
                }
            }
        }
        disk
    }
}
