//! Raw: the disk's bytes as they are.

use std::ops::Range;
use std::sync::Arc;

use crate::cluster::ClusterCodec;
use crate::forward::{Decoder, Emit, Finish, Geometry, PieceKind};
use crate::num::to_u64;
use crate::{
    Compression, Error, Extent, ExtentKind, Extents, Format, Image, Info, Limits, ReadAt, Result,
    coalesce,
};

fn info(virtual_size: u64) -> Info {
    Info {
        format: Format::Raw,
        variant: String::new(),
        virtual_size,
        cluster_size: None,
        compression: Compression::None,
        features: Vec::new(),
        references: Vec::new(),
    }
}

/// A raw disk with random access. Its extents are the file's data and holes.
#[derive(Debug)]
pub struct Raw {
    file: Arc<dyn ReadAt>,
    info: Info,
}

impl Raw {
    /// Takes any bytes as a disk.
    pub fn open(file: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        limits.check_virtual_size(file.len())?;
        let info = info(file.len());
        Ok(Self { file, info })
    }

    /// A disk that is the first bytes of `file`, as many as `info` says.
    pub(crate) fn part(file: Arc<dyn ReadAt>, info: Info) -> Self {
        Self { file, info }
    }
}

impl Image for Raw {
    fn virtual_size(&self) -> u64 {
        self.info.virtual_size
    }

    fn info(&self) -> Info {
        self.info.clone()
    }

    fn data(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    fn extents(&self, range: Range<u64>) -> Extents<'_> {
        let range = range.start..range.end.min(self.info.virtual_size);
        coalesce(Holes::new(&self.file, range))
    }
}

/// Walks data and holes of a file, not joined yet.
pub(crate) struct Holes<'a> {
    file: &'a Arc<dyn ReadAt>,
    range: Range<u64>,
    data: Option<Range<u64>>,
    failed: bool,
}

impl<'a> Holes<'a> {
    pub(crate) fn new(file: &'a Arc<dyn ReadAt>, range: Range<u64>) -> Self {
        Self {
            file,
            range,
            data: None,
            failed: false,
        }
    }
}

impl Iterator for Holes<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.range.start;
        if self.failed || self.range.is_empty() {
            return None;
        }
        let data = match self.data.take().filter(|data| data.end > from) {
            Some(data) => data,
            None => match self.file.next_data(from) {
                Ok(found) => found.unwrap_or(self.range.end..self.range.end),
                Err(e) => {
                    self.failed = true;
                    return Some(Err(Error::io("looking for data and holes", e).at(from)));
                }
            },
        };
        let (end, kind) = if data.start > from {
            (data.start.min(self.range.end), ExtentKind::Zero)
        } else {
            (data.end.min(self.range.end), ExtentKind::Data { at: from })
        };
        if end <= from {
            self.failed = true;
            return Some(Err(
                Error::malformed("the file changed while it was read").at(from)
            ));
        }
        self.data = Some(data);
        self.range.start = end;
        Some(Ok(Extent {
            guest: from..end,
            kind,
        }))
    }
}

/// A raw disk that passes by.
#[derive(Debug)]
pub struct RawDecoder {
    len: Option<u64>,
    pos: u64,
    begun: bool,
}

impl RawDecoder {
    /// A decoder for a stream of `len` bytes, if that is known.
    pub fn new(len: Option<u64>) -> Self {
        Self {
            len,
            pos: 0,
            begun: false,
        }
    }

    fn begin(&mut self, out: &mut dyn Emit) -> Result<()> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        out.geometry(&Geometry {
            virtual_size: self.len,
            cluster_size: 0,
            codec: ClusterCodec::None,
            info: info(self.len.unwrap_or(0)),
        })
    }
}

impl Decoder for RawDecoder {
    fn push(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        self.begin(out)?;
        let end = self.pos.saturating_add(to_u64(bytes.len()));
        if self.len.is_some_and(|len| end > len) {
            return Err(Error::malformed(
                "the stream is longer than its announced length",
            ));
        }
        out.piece(self.pos..end, PieceKind::Plain, bytes)?;
        self.pos = end;
        Ok(())
    }

    fn safe_point(&self) -> Option<u64> {
        Some(self.pos)
    }

    fn skip_to(&mut self, at: u64, out: &mut dyn Emit) -> Result<bool> {
        self.begin(out)?;
        self.pos = at;
        Ok(true)
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        self.begin(out)?;
        match self.len {
            Some(len) if len != self.pos => Err(Error::malformed(format!(
                "the stream ended after {} of {len} bytes: it is truncated",
                self.pos
            ))),
            _ => Ok(Finish::Done {
                virtual_size: self.pos,
            }),
        }
    }
}
