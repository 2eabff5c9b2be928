//! qcow2 images by the byte: a small valid one, and ways to spoil it.

/// Bit 63 of an entry: refcount is one.
pub(crate) const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry.
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of an L2 entry.
pub(crate) const ZERO: u64 = 1;

/// An image whose header is in cluster 0, L1 in as many as it takes from cluster 1 on, then one L2
/// table, then data clusters. Everything can be overwritten.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(crate) image: Vec<u8>,
    pub(crate) cluster: u64,
    pub(crate) l1: u64,
    pub(crate) l2: u64,
    extended: bool,
}

impl Builder {
    /// Version 3, `size` bytes, nothing mapped; the first L1 entry names an empty L2 table.
    pub(crate) fn new(cluster_bits: u32, size: u64) -> Self {
        Self::with(cluster_bits, size, false)
    }

    pub(crate) fn extended(cluster_bits: u32, size: u64) -> Self {
        Self::with(cluster_bits, size, true)
    }

    fn with(cluster_bits: u32, size: u64, extended: bool) -> Self {
        let cluster = 1_u64 << cluster_bits;
        let covers = cluster * (cluster / if extended { 16 } else { 8 });
        let entries = size.div_ceil(covers).max(1);
        let l2 = cluster + (entries * 8).next_multiple_of(cluster);
        let mut this = Self {
            image: vec![0; usize::try_from(l2 + cluster).unwrap()],
            cluster,
            l1: cluster,
            l2,
            extended,
        };
        this.put(0, b"QFI\xfb");
        this.be32(4, 3);
        this.be32(20, cluster_bits);
        this.be64(24, size);
        this.be32(36, u32::try_from(entries).unwrap());
        this.be64(40, cluster);
        this.be32(96, 4);
        this.be32(100, 104);
        if extended {
            this.be64(72, 1 << 4);
        }
        this.l1_entry(0, l2 | COPIED);
        this
    }

    /// Turns it into version 2.
    pub(crate) fn v2(mut self) -> Self {
        self.be32(4, 2);
        self.image[72..104].fill(0);
        self
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) -> &mut Self {
        let at = usize::try_from(at).unwrap();
        let end = at + bytes.len();
        if self.image.len() < end {
            self.image.resize(end, 0);
        }
        self.image[at..end].copy_from_slice(bytes);
        self
    }

    pub(crate) fn be32(&mut self, at: u64, value: u32) -> &mut Self {
        self.put(at, &value.to_be_bytes())
    }

    pub(crate) fn be64(&mut self, at: u64, value: u64) -> &mut Self {
        self.put(at, &value.to_be_bytes())
    }

    pub(crate) fn l1_entry(&mut self, index: u64, entry: u64) -> &mut Self {
        self.be64(self.l1 + index * 8, entry)
    }

    /// Entry `index` of the L2 table; its offset in the file is [`Builder::l2_at`].
    pub(crate) fn l2_entry(&mut self, index: u64, entry: u64) -> &mut Self {
        self.be64(self.l2_at(index), entry)
    }

    pub(crate) fn bitmap(&mut self, index: u64, bitmap: u64) -> &mut Self {
        self.be64(self.l2_at(index) + 8, bitmap)
    }

    pub(crate) fn l2_at(&self, index: u64) -> u64 {
        self.l2 + index * if self.extended { 16 } else { 8 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.image.len() as u64
    }

    /// Appends a cluster full of `byte` at the next cluster boundary; says where.
    pub(crate) fn data(&mut self, byte: u8) -> u64 {
        let at = self.len().next_multiple_of(self.cluster);
        let full = vec![byte; usize::try_from(self.cluster).unwrap()];
        self.put(at, &full);
        at
    }

    /// Appends bytes at `at` or later, aligned to nothing; says where.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> u64 {
        let at = self.len();
        self.put(at, bytes);
        at
    }

    /// The entry for `len` compressed bytes at `at`.
    pub(crate) fn compressed(&self, at: u64, len: u64) -> u64 {
        let shift = 62 - (self.cluster.trailing_zeros() - 8);
        let sectors = (at + len).div_ceil(512) - at / 512;
        COMPRESSED | (sectors - 1) << shift | at
    }

    /// Adds a header extension; they follow each other from byte 104 (72 in version 2).
    pub(crate) fn extension(&mut self, at: u64, kind: u32, data: &[u8]) -> u64 {
        self.be32(at, kind);
        self.be32(at + 4, u32::try_from(data.len()).unwrap());
        self.put(at + 8, data);
        at + 8 + (data.len() as u64).next_multiple_of(8)
    }

    pub(crate) fn backing(&mut self, at: u64, name: &[u8]) -> &mut Self {
        self.put(at, name);
        self.be64(8, at);
        self.be32(16, u32::try_from(name.len()).unwrap())
    }
}

/// Raw deflate.
pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}
