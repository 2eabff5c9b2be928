//! Files that a tar has without their holes: GNU's old format and its three pax formats.
//!
//! All of them say which ranges of the file there are, and have the bytes of these ranges one behind the
//! other. Where they say it differs: in the header and blocks behind it (type `S`), in pax records
//! (0.0 and 0.1), or in front of the data (1.0).
//!
//! Source: the manual of GNU tar, "Storing Sparse Files" (D.2).

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use longshore_image::{FileRange, ReadAt};
use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::ArchiveError;
use super::tape::{BLOCK, BLOCK_LEN};

/// Most ranges of a file: 4.6 MiB of them.
const MOST_REGIONS: usize = 200_000;
/// Largest file with holes: as large as a disk may be.
const MOST_SIZE: u64 = 64 << 40;

/// Bytes of the file that the archive has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Region {
    /// Where in the file.
    file: Range<u64>,
    /// How many bytes of the file come before it in the archive.
    stored: u64,
}

/// What of a file the archive has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    size: u64,
    regions: Arc<[Region]>,
}

impl Map {
    /// Bytes of the file, holes counted.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where the region is that holds `at`, or the next one.
    fn index(&self, at: u64) -> usize {
        self.regions.partition_point(|region| region.file.end <= at)
    }

    /// The region that holds `at`, or the next one.
    fn region(&self, at: u64) -> Option<&Region> {
        self.regions.get(self.index(at))
    }
}

/// A map in the making.
#[derive(Debug, Default)]
struct Draft {
    regions: Vec<Region>,
    stored: u64,
    end: u64,
}

impl Draft {
    fn add(&mut self, start: u64, len: u64) -> Result<(), ArchiveError> {
        let end = start.checked_add(len).filter(|_| start >= self.end);
        let Some(end) = end else {
            return Err(bad("its ranges overlap or are out of order"));
        };
        if len > 0 {
            if self.regions.len() >= MOST_REGIONS {
                return Err(bad(&format!("it has more than {MOST_REGIONS} ranges")));
            }
            self.regions.push(Region {
                file: start..end,
                stored: self.stored,
            });
        }
        self.end = end;
        self.stored = self.stored.saturating_add(len);
        Ok(())
    }

    /// The map of a file of `size` bytes, of which the archive has `stored`.
    fn finish(self, size: u64, stored: u64) -> Result<Map, ArchiveError> {
        if size > MOST_SIZE {
            return Err(bad("it is larger than 64 TiB"));
        }
        if self.end > size {
            return Err(bad("its ranges go beyond its end"));
        }
        if self.stored != stored {
            return Err(bad("its ranges are not what the archive has of it"));
        }
        Ok(Map {
            size,
            regions: self.regions.into(),
        })
    }
}

fn bad(what: &str) -> ArchiveError {
    ArchiveError::malformed(format!("the map of a file with holes can't be: {what}"))
}

/// The map of an old entry: in `header`, and in the blocks `behind` it.
pub(super) fn old(header: &GnuHeader, behind: &[u8], stored: u64) -> Result<Map, ArchiveError> {
    let mut draft = Draft::default();
    add_all(&mut draft, &header.sparse)?;
    let (blocks, _) = behind.as_chunks::<BLOCK_LEN>();
    for block in blocks {
        let mut more = GnuExtSparseHeader::new();
        more.as_mut_bytes().copy_from_slice(block);
        add_all(&mut draft, more.sparse())?;
    }
    draft.finish(header.real_size()?, stored)
}

fn add_all(draft: &mut Draft, ranges: &[GnuSparseHeader]) -> Result<(), ArchiveError> {
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        draft.add(range.offset()?, range.length()?)?;
    }
    Ok(())
}

/// What pax records say of a file's holes.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// The file's own name; the entry has one for readers that know of no holes.
    pub(crate) name: Option<Vec<u8>>,
    version: (Option<u64>, Option<u64>),
    size: Option<u64>,
    /// Version 0.1.
    map: Option<Draft>,
    /// Version 0.0: ranges, and the start of one whose length comes next.
    ranges: Option<Draft>,
    start: Option<u64>,
}

impl Records {
    /// Takes in a record; those of others are passed over.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else {
            return Ok(());
        };
        match key {
            b"name" => once(&mut self.name, value.to_owned()),
            b"major" => once(&mut self.version.0, number(value)?),
            b"minor" => once(&mut self.version.1, number(value)?),
            b"size" | b"realsize" => once(&mut self.size, number(value)?),
            b"map" => {
                let mut draft = Draft::default();
                let mut numbers = value.split(|&byte| byte == b',').map(number);
                while let Some(start) = numbers.next().filter(|_| !value.is_empty()) {
                    let len = numbers
                        .next()
                        .unwrap_or_else(|| Err(bad("a length is missing")));
                    draft.add(start?, len?)?;
                }
                once(&mut self.map, draft)
            }
            b"offset" => once(&mut self.start, number(value)?),
            b"numbytes" => {
                let start = self.start.take();
                let start = start.ok_or_else(|| bad("a length has no start"))?;
                let ranges = self.ranges.get_or_insert_default();
                ranges.add(start, number(value)?)
            }
            // How many ranges there are is seen.
            b"numblocks" => Ok(()),
            _ => Err(bad("a record of it is not known")),
        }
    }

    /// The map of an entry with `stored` bytes, which `data` reads; `None` if it has no holes. The map of
    /// version 1.0 is taken out of `data`.
    pub(crate) fn map(self, stored: u64, data: impl Read) -> Result<Option<Map>, ArchiveError> {
        let draft = match (self.version, self.map, self.ranges, self.start) {
            ((None, None), None, None, None) if self.size.is_none() => return Ok(None),
            ((Some(1), Some(0)), None, None, None) => {
                let (draft, len) = in_front(data)?;
                let size = self.size.ok_or_else(|| bad("its size is missing"))?;
                return draft.finish(size, stored.saturating_sub(len)).map(Some);
            }
            ((None, None), Some(draft), None, None) | ((None, None), None, Some(draft), None) => {
                draft
            }
            // All of it is a hole.
            ((None, None), None, None, None) => Draft::default(),
            _ => return Err(bad("its version is not known, or it has two maps")),
        };
        let size = self.size.ok_or_else(|| bad("its size is missing"))?;
        draft.finish(size, stored).map(Some)
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), ArchiveError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad("it says something twice")),
    }
}

fn number(digits: &[u8]) -> Result<u64, ArchiveError> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = all_digits
        .then(|| std::str::from_utf8(digits).ok())
        .flatten();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| bad("a number is none"))
}

/// The map that is in front of the data, in whole blocks, and how long it is: numbers on lines of their
/// own, the first of which says how many ranges follow.
fn in_front(mut data: impl Read) -> Result<(Draft, u64), ArchiveError> {
    let mut draft = Draft::default();
    let (mut ranges, mut start) = (None, None);
    let mut line = Vec::new();
    let mut len = 0;
    loop {
        let mut block = [0; BLOCK_LEN];
        data.read_exact(&mut block)?;
        len += BLOCK;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(bad("a number is too long"));
                }
                continue;
            }
            let found = number(&line)?;
            line.clear();
            match (ranges, start.take()) {
                (None, _) => ranges = Some(found),
                (Some(_), None) => start = Some(found),
                (Some(left), Some(start)) => {
                    draft.add(start, found)?;
                    ranges = Some(left - 1);
                }
            }
            // The rest of the block is padding.
            if ranges == Some(0) {
                return Ok((draft, len));
            }
        }
    }
}

/// Where a reader is in a file with holes.
#[derive(Debug)]
pub(crate) struct Cursor {
    map: Map,
    at: u64,
    index: usize,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    End,
    /// So many zeros that the archive does not have.
    Zeros(u64),
    /// So many bytes that come next in the archive.
    Data(u64),
}

impl Cursor {
    pub(crate) fn new(map: Map) -> Self {
        Self {
            map,
            at: 0,
            index: 0,
        }
    }

    /// Bytes of the file that come yet.
    pub(super) fn left(&self) -> u64 {
        self.map.size.saturating_sub(self.at)
    }

    pub(crate) fn next(&mut self) -> Next {
        while let Some(region) = self.map.regions.get(self.index) {
            if self.at < region.file.start {
                return Next::Zeros(region.file.start - self.at);
            }
            if self.at < region.file.end {
                return Next::Data(region.file.end - self.at);
            }
            self.index += 1;
        }
        match self.left() {
            0 => Next::End,
            left => Next::Zeros(left),
        }
    }

    /// So many bytes of what comes next were read.
    pub(crate) fn advance(&mut self, n: u64) {
        self.at = self.at.saturating_add(n);
    }
}

/// A file in an archive that can be read at random.
#[derive(Debug)]
pub(crate) struct Part {
    archive: Arc<dyn ReadAt>,
    place: Place,
}

/// Where a file is in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset of its bytes.
    pub(super) at: u64,
    /// How many it has, holes counted.
    pub(super) size: u64,
    /// What of it the archive has, if that is not all.
    pub(super) map: Option<Map>,
}

impl Part {
    /// `range` of `archive`.
    pub(crate) fn new(archive: Arc<dyn ReadAt>, range: Range<u64>) -> Self {
        let place = Place {
            at: range.start,
            size: range.end.saturating_sub(range.start),
            map: None,
        };
        Self { archive, place }
    }

    pub(super) fn of(archive: Arc<dyn ReadAt>, place: Place) -> Self {
        Self { archive, place }
    }

    /// `at`, which is in `region`, in the archive.
    fn in_archive(&self, region: &Region, at: u64) -> u64 {
        let skip = at.saturating_sub(region.file.start);
        let stored = region.stored.saturating_add(skip);
        self.place.at.saturating_add(stored)
    }
}

impl ReadAt for Part {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let Some(map) = &self.place.map else {
            return self.archive.read_exact_at(buf, self.place.at + offset);
        };
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let region = map.region(at);
            let hole = region
                .map_or(u64::MAX, |region| region.file.start)
                .saturating_sub(at);
            let n = match region {
                Some(region) if hole == 0 => region.file.end - at,
                _ => hole,
            };
            let n = rest.len().min(usize::try_from(n).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at_mut(n);
            match region {
                Some(region) if hole == 0 => {
                    self.archive
                        .read_exact_at(now, self.in_archive(region, at))?;
                }
                _ => now.fill(0),
            }
            at += n as u64;
            rest = later;
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.place.size
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let Some(map) = &self.place.map else {
            return Ok((from < self.len()).then(|| from..self.len()));
        };
        let found = map.region(from);
        Ok(found.map(|region| region.file.start.max(from)..region.file.end))
    }

    fn in_file(&self, at: u64) -> Option<FileRange<'_>> {
        let Some(map) = &self.place.map else {
            let there = self.len().checked_sub(at)?;
            return Some(self.archive.in_file(self.place.at + at)?.up_to(there));
        };
        let region = map.region(at).filter(|region| region.file.contains(&at))?;
        let there = self.archive.in_file(self.in_archive(region, at))?;
        Some(there.up_to(region.file.end - at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[(&str, &str)]) -> Result<Records, ArchiveError> {
        let mut records = Records::default();
        for (key, value) in list {
            let key = format!("GNU.sparse.{key}");
            records.take(key.as_bytes(), value.as_bytes())?;
        }
        Ok(records)
    }

    fn map(list: &[(&str, &str)], stored: u64, data: &[u8]) -> Result<Option<Map>, ArchiveError> {
        records(list)?.map(stored, data)
    }

    fn front(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    const V1: [(&str, &str); 3] = [("major", "1"), ("minor", "0"), ("realsize", "100")];

    #[test]
    fn all_pax_versions_make_the_same_map() {
        let expected = map(&[("size", "100"), ("map", "0,10,50,20")], 30, b"").unwrap();
        let first = [
            ("size", "100"),
            ("numblocks", "3"),
            ("offset", "0"),
            ("numbytes", "10"),
            ("offset", "50"),
            ("numbytes", "20"),
            ("offset", "100"),
            ("numbytes", "0"),
        ];
        assert_eq!(map(&first, 30, b"").unwrap(), expected);
        let data = front("2\n0\n10\n50\n20\n");
        assert_eq!(map(&V1, 512 + 30, &data).unwrap(), expected);
        let mut cursor = Cursor::new(expected.unwrap());
        for next in [
            Next::Data(10),
            Next::Zeros(40),
            Next::Data(20),
            Next::Zeros(30),
        ] {
            assert_eq!(cursor.next(), next);
            let (Next::Data(n) | Next::Zeros(n)) = next else {
                unreachable!("there are bytes")
            };
            cursor.advance(n);
        }
        assert_eq!(cursor.next(), Next::End);
    }

    #[test]
    fn a_file_without_such_records_has_no_holes() {
        let mut records = Records::default();
        records.take(b"path", b"x").unwrap();
        assert_eq!(records.map(30, io::empty()).unwrap(), None);
    }

    #[test]
    fn maps_that_can_not_be_are_refused() {
        for list in [
            &[("size", "100"), ("map", "0,10,5,20")][..],
            &[("size", "100"), ("map", "0,10,90,20")],
            &[("size", "100"), ("map", "0,10,50")],
            &[("size", "100"), ("map", "0,10,50,-20")],
            &[("size", "100"), ("map", "0,10,18446744073709551615,20")],
            &[("size", "100"), ("map", "0,10")],
            &[("size", "99999999999999999"), ("map", "0,30")],
            &[("map", "0,10,50,20")],
            &[("size", "100"), ("size", "100"), ("map", "0,10,50,20")],
            &[
                ("size", "100"),
                ("map", "0,30"),
                ("offset", "0"),
                ("numbytes", "30"),
            ],
            &[("size", "100"), ("numbytes", "30")],
            &[("size", "100"), ("offset", "30")],
            &[
                ("size", "100"),
                ("map", "0,30"),
                ("major", "0"),
                ("minor", "2"),
            ],
            &[("size", "100"), ("map", "0,30"), ("more", "0")],
        ] {
            assert!(map(list, 30, b"").is_err(), "{list:?}");
        }
        for text in [
            "2\n0\n10\n50\n",
            "x\n",
            "\n",
            "1\n0\n30000000000000000000000\n",
            "1\n0\n31\n",
        ] {
            assert!(map(&V1, 512 + 30, &front(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn more_ranges_than_memory_is_kept_for_are_refused() {
        let mut draft = Draft::default();
        let error = (0..).find_map(|n| draft.add(n * 2, 1).err().map(|_| n));
        assert_eq!(error, Some(MOST_REGIONS as u64));
    }

    #[test]
    fn any_range_can_be_read_at_random() {
        let place = Place {
            at: 3,
            size: 20,
            map: map(&[("size", "20"), ("map", "2,4,10,3")], 7, b"").unwrap(),
        };
        let part = Part::of(Arc::new(b"---abcdefg".to_vec()), place);
        let whole = b"\0\0abcd\0\0\0\0efg\0\0\0\0\0\0\0";
        for start in 0..20_usize {
            for end in start..=20 {
                let mut found = vec![b'x'; end - start];
                part.read_exact_at(&mut found, start as u64).unwrap();
                assert_eq!(found, whole[start..end], "{start}..{end}");
            }
        }
        assert_eq!(part.next_data(0).unwrap(), Some(2..6));
        assert_eq!(part.next_data(11).unwrap(), Some(11..13));
        assert_eq!(part.next_data(13).unwrap(), None);
    }
}
