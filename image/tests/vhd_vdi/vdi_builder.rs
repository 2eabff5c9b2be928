//! VDIs by the byte.

use crate::vhd_builder::put;

/// Offset of the block map in what [`Builder`] makes.
pub(crate) const MAP_AT: usize = 512;

/// Never written.
pub(crate) const FREE: u32 = 0xffff_ffff;
/// Discarded.
pub(crate) const ZERO: u32 = 0xffff_fffe;

#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(crate) size: u64,
    pub(crate) block: u32,
    /// Entries of the map.
    pub(crate) map: Vec<u32>,
    /// The data area.
    pub(crate) data: Vec<u8>,
    /// Bytes of nothing behind the map.
    pub(crate) gap: usize,
}

impl Builder {
    pub(crate) fn new(size: u64, block: u32) -> Self {
        Self {
            size,
            block,
            map: vec![FREE; size.div_ceil(u64::from(block)) as usize],
            data: Vec::new(),
            gap: 0,
        }
    }

    /// Puts a block next in the file.
    pub(crate) fn block(mut self, number: usize, bytes: &[u8]) -> Self {
        self.map[number] = (self.data.len() / self.block as usize) as u32;
        self.data.extend_from_slice(bytes);
        self.data
            .resize(self.data.len().next_multiple_of(self.block as usize), 0);
        self
    }

    pub(crate) fn data_at(&self) -> usize {
        MAP_AT + self.map.len() * 4 + self.gap
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut image = vec![0; 512];
        put(&mut image, 0, b"<<< Oracle VM VirtualBox Disk Image >>>\n");
        let words = [
            (64, 0xbeda_107f),
            (68, 0x1_0001),
            (72, 400),
            (76, 1),
            (340, MAP_AT as u32),
            (344, self.data_at() as u32),
            (360, 512),
            (376, self.block),
            (384, self.map.len() as u32),
            (388, (self.data.len() / self.block as usize) as u32),
        ];
        for (at, word) in words {
            put(&mut image, at, &word.to_le_bytes());
        }
        put(&mut image, 368, &self.size.to_le_bytes());
        put(&mut image, 392, &[9; 16]);
        for entry in &self.map {
            image.extend(entry.to_le_bytes());
        }
        image.resize(self.data_at(), 0xCC);
        image.extend(&self.data);
        image
    }

    pub(crate) fn disk(&self) -> Vec<u8> {
        let block = self.block as usize;
        let size = (self.size as usize).next_multiple_of(512);
        let mut disk = Vec::new();
        for &entry in &self.map {
            let start = disk.len();
            disk.resize(start + block, 0);
            if entry < ZERO {
                let from = (entry as usize * block).min(self.data.len());
                let there = self.data.len().saturating_sub(from).min(block);
                disk[start..start + there].copy_from_slice(&self.data[from..from + there]);
            }
        }
        disk.resize(size, 0);
        disk
    }
}
