//! VHDX files byte by byte, as [MS-VHDX] lays them out: what qemu-img does not write, and what nobody should.

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
pub(crate) const REGION_TABLES: [usize; 2] = [192 << 10, 256 << 10];
pub(crate) const LOG_GUID: [u8; 16] = *b"the log's writer";
pub(crate) const DATA_GUID: [u8; 16] = [
    0x04, 0x03, 0x02, 0x01, 0x06, 0x05, 0x08, 0x07, 9, 10, 11, 12, 13, 14, 15, 16,
];
/// How [`DATA_GUID`] is spelled in a parent locator.
pub(crate) const DATA_GUID_TEXT: &str = "{01020304-0506-0708-090a-0b0c0d0e0f10}";

pub(crate) const BAT: [u8; 16] = [
    0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
];
pub(crate) const METADATA: [u8; 16] = [
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
];
/// File parameters, size, disk id, logical sector, physical sector, parent locator.
pub(crate) const ITEMS: [[u8; 16]; 6] = [
    [
        0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
        0x6b,
    ],
    [
        0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4,
        0xb8,
    ],
    [
        0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7,
        0x46,
    ],
    [
        0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab,
        0x5f,
    ],
    [
        0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5,
        0x56,
    ],
    [
        0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab,
        0x0c,
    ],
];
const LOCATOR_TYPE: [u8; 16] = [
    0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13,
];

/// What is in a payload block.
#[derive(Debug, Clone)]
pub(crate) enum Block {
    /// Only an entry: this state, and an offset of nothing.
    State(u64),
    Data(Vec<u8>),
    /// Some sectors of it.
    Partial(Vec<u8>, Vec<bool>),
}

/// Bytes that look like nothing else, different for each seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(crate) size: u64,
    pub(crate) block: u32,
    pub(crate) sector: u32,
    pub(crate) flags: u32,
    pub(crate) log_len: u64,
    /// The metadata in front of the table, as Hyper-V has it; QEMU has it behind.
    pub(crate) metadata_first: bool,
    pub(crate) dirty: bool,
    pub(crate) locator: Option<Vec<(String, String)>>,
}

impl Builder {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            block: 1 << 20,
            sector: 512,
            flags: 0,
            log_len: MIB,
            metadata_first: false,
            dirty: false,
            locator: None,
        }
    }

    /// A child of the image that has [`DATA_GUID`], at `path`.
    pub(crate) fn child(size: u64, path: &str) -> Self {
        let entries = [("parent_linkage", DATA_GUID_TEXT), ("relative_path", path)];
        Self {
            flags: 2,
            locator: Some(
                entries
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .to_vec(),
            ),
            ..Self::new(size)
        }
    }

    pub(crate) fn ratio(&self) -> u64 {
        (u64::from(self.sector) << 23) / u64::from(self.block)
    }

    pub(crate) fn entry_of(&self, block: u64) -> u64 {
        block + block / self.ratio()
    }

    /// The file with these blocks, in the order given.
    pub(crate) fn build(&self, blocks: &[(u64, Block)]) -> Built {
        let count = self.size.div_ceil(u64::from(self.block));
        let chunks = count.div_ceil(self.ratio());
        let bat_len = (chunks * (self.ratio() + 1) * 8)
            .max(8)
            .next_multiple_of(MIB);
        let log_at = MIB;
        let first = log_at + self.log_len;
        let (bat_at, metadata_at) = if self.metadata_first {
            (first + MIB, first)
        } else {
            (first, first + bat_len)
        };
        let mut built = Built {
            bytes: Vec::new(),
            log_at: log_at as usize,
            log_len: self.log_len as usize,
            bat_at: bat_at as usize,
            metadata_at: metadata_at as usize,
            data_at: (first + MIB + bat_len) as usize,
            block_at: Vec::new(),
        };
        built.bytes.resize(built.data_at, 0);
        built.put(0, b"vhdxfile");
        built.put(
            8,
            &"a test"
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>(),
        );
        for (n, at) in HEADERS.into_iter().enumerate() {
            self.header(&mut built, at, 7 + n as u64);
        }
        for at in REGION_TABLES {
            built.put(at, b"regi");
            built.put(at + 8, &2_u32.to_le_bytes());
            for (n, (guid, place, len)) in [(BAT, bat_at, bat_len), (METADATA, metadata_at, MIB)]
                .into_iter()
                .enumerate()
            {
                built.region(at, n, guid, place, len as u32, 1);
            }
            built.seal_regions(at);
        }
        self.metadata(&mut built);
        for (block, content) in blocks {
            self.block(&mut built, *block, content);
        }
        built
    }

    fn header(&self, built: &mut Built, at: usize, sequence: u64) {
        built.put(at, b"head");
        built.put(at + 8, &sequence.to_le_bytes());
        built.put(at + 16, b"file write guid.");
        built.put(at + 32, &DATA_GUID);
        if self.dirty {
            built.put(at + 48, &LOG_GUID);
        }
        built.put(at + 66, &1_u16.to_le_bytes());
        built.put(at + 68, &(self.log_len as u32).to_le_bytes());
        built.put(at + 72, &(built.log_at as u64).to_le_bytes());
        built.seal_header(at);
    }

    fn metadata(&self, built: &mut Built) {
        let mut parameters = self.block.to_le_bytes().to_vec();
        parameters.extend(self.flags.to_le_bytes());
        let mut items = vec![
            parameters,
            self.size.to_le_bytes().to_vec(),
            b"a virtual disk's".to_vec(),
            self.sector.to_le_bytes().to_vec(),
            4096_u32.to_le_bytes().to_vec(),
        ];
        if let Some(entries) = &self.locator {
            items.push(locator(entries));
        }
        let at = built.metadata_at;
        built.put(at, b"metadata");
        built.put(at + 10, &(items.len() as u16).to_le_bytes());
        let mut offset = 64 << 10;
        for (n, bytes) in items.iter().enumerate() {
            let entry = at + 32 + n * 32;
            built.put(entry, &ITEMS[n]);
            built.put(entry + 16, &(offset as u32).to_le_bytes());
            built.put(entry + 20, &(bytes.len() as u32).to_le_bytes());
            built.put(entry + 24, &[if n == 0 || n == 5 { 4 } else { 6 }]);
            built.put(at + offset, bytes);
            offset += bytes.len();
        }
    }

    fn block(&self, built: &mut Built, block: u64, content: &Block) {
        let entry = built.bat_at + self.entry_of(block) as usize * 8;
        let (state, data) = match content {
            Block::State(state) => {
                built.put(entry, &state.to_le_bytes());
                return;
            }
            Block::Data(data) => (6, data),
            Block::Partial(data, here) => {
                self.bitmap(built, block, here);
                (7, data)
            }
        };
        let at = built.bytes.len();
        built.bytes.resize(at + self.block as usize, 0);
        built.put(at, data);
        built.put(entry, &(at as u64 | state).to_le_bytes());
        built.block_at.push((block, at));
    }

    /// Sets the bits of a block's sectors, in a bitmap that may have to be made.
    fn bitmap(&self, built: &mut Built, block: u64, here: &[bool]) {
        let chunk = block / self.ratio();
        let entry = built.bat_at + (chunk * (self.ratio() + 1) + self.ratio()) as usize * 8;
        let mut raw = u64::from_le_bytes(built.bytes[entry..entry + 8].try_into().unwrap());
        if raw == 0 {
            raw = built.bytes.len() as u64 | 6;
            built.put(entry, &raw.to_le_bytes());
            built.bytes.resize(built.bytes.len() + MIB as usize, 0);
        }
        let sectors = u64::from(self.block / self.sector);
        let first = (block % self.ratio() * sectors) as usize;
        for (n, _) in here.iter().enumerate().filter(|(_, here)| **here) {
            let bit = first + n;
            built.bytes[(raw >> 20 << 20) as usize + bit / 8] |= 1 << (bit % 8);
        }
    }

    /// What qemu-img and we should read of `blocks` where there is no parent.
    pub(crate) fn disk(&self, blocks: &[(u64, Block)]) -> Vec<u8> {
        let mut disk = vec![0; self.size as usize];
        for (block, content) in blocks {
            if let Block::Data(data) = content {
                let start = *block as usize * self.block as usize;
                let end = (start + data.len()).min(disk.len());
                disk[start..end].copy_from_slice(&data[..end - start]);
            }
        }
        disk
    }
}

fn locator(entries: &[(String, String)]) -> Vec<u8> {
    let mut bytes = LOCATOR_TYPE.to_vec();
    bytes.extend([0, 0]);
    bytes.extend((entries.len() as u16).to_le_bytes());
    let mut texts: Vec<u8> = Vec::new();
    let base = bytes.len() + entries.len() * 12;
    for (key, value) in entries {
        let [key, value] = [key, value].map(|text| {
            let at = base + texts.len();
            let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            texts.extend(&text);
            (at as u32, text.len() as u16)
        });
        bytes.extend(key.0.to_le_bytes());
        bytes.extend(value.0.to_le_bytes());
        bytes.extend(key.1.to_le_bytes());
        bytes.extend(value.1.to_le_bytes());
    }
    bytes.extend(texts);
    bytes
}

/// A file, and where things are in it.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) log_at: usize,
    pub(crate) log_len: usize,
    pub(crate) bat_at: usize,
    pub(crate) metadata_at: usize,
    pub(crate) data_at: usize,
    pub(crate) block_at: Vec<(u64, usize)>,
}

impl Built {
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Entry `n` of the region table at `at`.
    pub(crate) fn region(
        &mut self,
        at: usize,
        n: usize,
        guid: [u8; 16],
        place: u64,
        len: u32,
        required: u32,
    ) {
        let entry = at + 16 + n * 32;
        self.put(entry, &guid);
        self.put(entry + 16, &place.to_le_bytes());
        self.put(entry + 24, &len.to_le_bytes());
        self.put(entry + 28, &required.to_le_bytes());
    }

    pub(crate) fn seal_header(&mut self, at: usize) {
        self.seal(at, 4096);
    }

    pub(crate) fn seal_regions(&mut self, at: usize) {
        self.seal(at, 64 << 10);
    }

    fn seal(&mut self, at: usize, len: usize) {
        seal(&mut self.bytes[at..at + len]);
    }

    /// Changes both headers at `offset`.
    pub(crate) fn in_headers(&mut self, offset: usize, bytes: &[u8]) {
        for at in HEADERS {
            self.put(at + offset, bytes);
            self.seal_header(at);
        }
    }

    /// Writes log entries one after the other from `offset` of the log on, around its end if need be.
    /// Returns the offset behind the last.
    pub(crate) fn log(&mut self, offset: usize, entries: &[Vec<u8>]) -> usize {
        let mut offset = offset;
        for sector in entries.iter().flat_map(|entry| entry.chunks(4096)) {
            self.put(self.log_at + offset, sector);
            offset = (offset + sector.len()) % self.log_len;
        }
        offset
    }

    /// What the sector of the file at `at` is now, with `bytes` at `offset`.
    pub(crate) fn sector(&self, at: usize, bytes: &[u8]) -> Write {
        let start = at / 4096 * 4096;
        let mut sector = self.bytes[start..start + 4096].to_vec();
        sector[at - start..at - start + bytes.len()].copy_from_slice(bytes);
        Write::Data(start as u64, sector)
    }
}

pub(crate) fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// One descriptor of a log entry.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Data(u64, Vec<u8>),
    Zero(u64, u64),
}

/// What a log entry says in front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryHead {
    pub(crate) sequence: u64,
    /// Offset in the log of the oldest entry of the sequence.
    pub(crate) tail: u32,
    pub(crate) flushed: u64,
    pub(crate) last: u64,
}

/// A log entry, whole sectors of 4096 bytes.
pub(crate) fn log_entry(head: EntryHead, writes: &[Write]) -> Vec<u8> {
    let descriptors = (writes.len() + 2).div_ceil(128) * 4096;
    let data = writes
        .iter()
        .filter(|w| matches!(w, Write::Data(..)))
        .count();
    let mut entry = vec![0; descriptors];
    entry[..4].copy_from_slice(b"loge");
    entry[8..12].copy_from_slice(&((descriptors + data * 4096) as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&head.tail.to_le_bytes());
    entry[16..24].copy_from_slice(&head.sequence.to_le_bytes());
    entry[24..28].copy_from_slice(&(writes.len() as u32).to_le_bytes());
    entry[32..48].copy_from_slice(&LOG_GUID);
    entry[48..56].copy_from_slice(&head.flushed.to_le_bytes());
    entry[56..64].copy_from_slice(&head.last.to_le_bytes());
    for (n, write) in writes.iter().enumerate() {
        let mut descriptor = [0; 32];
        descriptor[24..].copy_from_slice(&head.sequence.to_le_bytes());
        match write {
            Write::Zero(at, len) => {
                descriptor[..4].copy_from_slice(b"zero");
                descriptor[8..16].copy_from_slice(&len.to_le_bytes());
                descriptor[16..24].copy_from_slice(&at.to_le_bytes());
            }
            Write::Data(at, sector) => {
                descriptor[..4].copy_from_slice(b"desc");
                descriptor[4..8].copy_from_slice(&sector[4092..]);
                descriptor[8..16].copy_from_slice(&sector[..8]);
                descriptor[16..24].copy_from_slice(&at.to_le_bytes());
                let mut out = sector.clone();
                out[..4].copy_from_slice(b"data");
                out[4..8].copy_from_slice(&((head.sequence >> 32) as u32).to_le_bytes());
                out[4092..].copy_from_slice(&(head.sequence as u32).to_le_bytes());
                entry.extend(out);
            }
        }
        let start = 64 + n * 32;
        entry[start..start + 32].copy_from_slice(&descriptor);
    }
    seal(&mut entry);
    entry
}
