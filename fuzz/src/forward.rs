//! Images as streams.

use std::ops::Range;
use std::sync::Arc;

use longshore_image::cluster::ClusterDecoder;
use longshore_image::forward::{
    Decoder, Emit, Finish, Geometry, MAX_PASSES, MemoryHold, Options, PieceKind, decoder,
};
use longshore_image::vhd::raw_or_fixed;
use longshore_image::{Error, Format, Limits, ReadAt, Result, TAIL_LEN, probe_tail};

use super::dice::Dice;
use super::{File, TABLE_BYTES, disk_bytes};

/// The disk as far as it is looked at, and how much came out.
struct Disk {
    /// How much of it is looked at.
    most: u64,
    geometry: Option<(Geometry, ClusterDecoder)>,
    bytes: Vec<u8>,
    emitted: u64,
}

impl Emit for Disk {
    fn geometry(&mut self, geometry: &Geometry) -> Result<()> {
        assert!(self.geometry.is_none(), "the geometry came twice");
        // Only fixed disks show their size at the end.
        let size = geometry.virtual_size.unwrap_or(self.most);
        assert!(size <= Limits::MAX_VIRTUAL_SIZE);
        assert_eq!(
            geometry.info.virtual_size,
            geometry.virtual_size.unwrap_or(0)
        );
        self.bytes = vec![0; usize::try_from(size.min(self.most)).unwrap()];
        self.geometry = Some((geometry.clone(), ClusterDecoder::new(geometry.codec)));
        Ok(())
    }

    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()> {
        let (geometry, decoder) = self.geometry.as_mut().expect("the geometry comes first");
        let len = guest.end.checked_sub(guest.start).expect("a range");
        assert!(len > 0, "an empty piece");
        assert!(
            geometry.virtual_size.is_none_or(|size| guest.end <= size),
            "{guest:?}"
        );
        self.emitted += len;
        if self.emitted > 4 * self.most {
            return Err(Error::limit("enough was seen", self.emitted));
        }
        let unpacked;
        let bytes = match kind {
            PieceKind::Plain => {
                assert_eq!(u64::try_from(bytes.len()).unwrap(), len);
                bytes
            }
            PieceKind::Compressed => {
                assert!(len <= geometry.cluster_size, "{guest:?}");
                let mut cluster = vec![0; usize::try_from(len).unwrap()];
                decoder.decode(bytes, &mut cluster)?;
                unpacked = cluster;
                &unpacked
            }
        };
        // Sizes fit: both are below the cap, or nothing is copied.
        let start = usize::try_from(guest.start).unwrap();
        if let Some(place) = self.bytes.get_mut(start..) {
            let n = place.len().min(bytes.len());
            place[..n].copy_from_slice(&bytes[..n]);
        }
        Ok(())
    }
}

/// Decodes `data` as a stream in one of many ways; the disk, if it is small and came out whole.
pub(super) fn read(format: Format, data: &File, dice: &mut Dice) -> Option<Vec<u8>> {
    let file: Arc<dyn ReadAt> = data.clone();
    let options = Options {
        limits: Limits::with_table_bytes(TABLE_BYTES),
        hold: Box::new(MemoryHold::new([0, 3000, 100_000, 8 << 20][dice.roll(4)])),
        side: (dice.roll(3) == 0).then_some(file),
        reopenable: dice.roll(2) == 0,
        stream_len: (dice.roll(2) == 0).then(|| ReadAt::len(data)),
    };
    run(format, data, options, dice).ok()?
}

/// Decodes `data` as a stream with everything that can help.
pub(super) fn read_with_help(
    format: Format,
    data: &File,
    dice: &mut Dice,
) -> Result<Option<Vec<u8>>> {
    let options = Options {
        limits: Limits::with_table_bytes(4 * TABLE_BYTES),
        hold: Box::new(MemoryHold::new(8 << 20)),
        side: Some(data.clone()),
        reopenable: true,
        stream_len: Some(ReadAt::len(data)),
    };
    run(format, data, options, dice)
}

/// A stream of which nobody said what it is: a fixed VHD if its end is that of one, or the bytes as they
/// are.
pub(super) fn probed(data: &[u8], dice: &mut Dice) {
    let len = u64::try_from(data.len()).unwrap();
    let options = Options {
        stream_len: (dice.roll(2) == 0).then_some(len),
        ..Options::one_pass(Limits::with_table_bytes(TABLE_BYTES))
    };
    let most = disk_bytes(Format::Raw);
    let disk = push(raw_or_fixed(&options), false, data, most, dice);
    let tail = &data[data.len().saturating_sub(TAIL_LEN)..];
    match (disk, probe_tail(tail, len)) {
        (Ok(Some(disk)), None) => assert!(disk == data, "a raw disk changed"),
        (Ok(Some(disk)), Some(_)) => assert!(data.starts_with(&disk), "a fixed disk changed"),
        (Err(_), None) => panic!("a raw disk was refused"),
        _ => {}
    }
}

fn run(format: Format, data: &[u8], options: Options, dice: &mut Dice) -> Result<Option<Vec<u8>>> {
    let reopenable = options.reopenable;
    let most = disk_bytes(format);
    push(decoder(format, options)?, reopenable, data, most, dice)
}

fn push(
    mut decoder: Box<dyn Decoder>,
    reopenable: bool,
    data: &[u8],
    most: u64,
    dice: &mut Dice,
) -> Result<Option<Vec<u8>>> {
    let mut disk = Disk {
        most,
        geometry: None,
        bytes: Vec::new(),
        emitted: 0,
    };
    for _ in 0..MAX_PASSES {
        let mut rest = data;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(dice.len().min(rest.len()));
            decoder.push(chunk, &mut disk)?;
            rest = later;
        }
        match decoder.finish(&mut disk)? {
            Finish::AnotherPass => assert!(reopenable, "there is no other pass to have"),
            Finish::Done { virtual_size } => {
                let (geometry, _) = disk.geometry.expect("a disk has a geometry");
                assert!(
                    geometry
                        .virtual_size
                        .is_none_or(|size| size == virtual_size)
                );
                disk.bytes.truncate(usize::try_from(virtual_size).unwrap());
                return Ok((virtual_size <= most).then_some(disk.bytes));
            }
        }
    }
    panic!("the stream was wanted more than {MAX_PASSES} times");
}
