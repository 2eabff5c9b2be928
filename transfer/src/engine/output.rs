//! What becomes of decoded bytes: a raw disk or a qcow2 image.
//!
//! Here, and nowhere before, the two part: decoding threads hand over a [`Batch`] of either kind, and
//! whoever is writing passes it to the [`Output`]. The raw kind is offsets and bytes as ever.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use longshore_image::Limits;
use longshore_image::cluster::{ClusterCodec, Encoding};
use longshore_image::qcow2::write::{Params, Stored, WriteError, Writer};

use crate::budget::{Layout, Writing};
use crate::journal::Recorder;
use crate::pool::Pool;
use crate::target::{Qcow2Spec, Target, TargetFormat};
use crate::{Error, Result};

/// Decoded bytes on their way to the target.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) buf: Vec<u8>,
    /// Which pool it goes back to.
    pub(super) home: Home,
    pub(super) content: Content,
    /// For a raw disk: what the buffer was decoded as, zeros included; guest offset and range in it.
    pub(super) parts: Vec<(u64, Range<usize>)>,
    /// Guest bytes that this settles, zeros included.
    pub(super) resolved: u64,
}

#[derive(Debug)]
pub(super) enum Home {
    /// A unit of output.
    Outputs,
    /// One cluster that came in parts.
    Parts,
    /// A chunk of the stream, and where it came from.
    Chunks(Pool),
}

/// What is in a batch.
#[derive(Debug)]
pub(super) enum Content {
    /// For a raw disk: what is not zero, guest offset and range in the buffer.
    Runs(Vec<(u64, Range<usize>)>),
    /// For an image: clusters, and what of them is not zero.
    Clusters {
        stored: Vec<Stored>,
        runs: Vec<Range<usize>>,
    },
}

/// What came to a target, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub(super) written: u64,
    /// Blocks that the source has too.
    pub(super) shared: u64,
    /// Time spent waiting for storage before the end.
    pub(super) write_back: Duration,
}

impl Moved {
    fn by(target: &Target) -> Self {
        Self {
            written: target.bytes_written(),
            shared: target.bytes_shared(),
            write_back: target.write_back(),
        }
    }
}

/// A target, and what it is to become.
#[derive(Debug)]
pub(super) enum Output {
    Raw(Box<Target>),
    Qcow2(Box<Image>),
}

/// A qcow2 image being written.
#[derive(Debug)]
pub(super) struct Image {
    target: Target,
    writer: Writer,
    /// The size asked for, if one was.
    size: Option<u64>,
}

impl Output {
    /// How much memory writing to this target takes.
    pub(super) fn writing(target: &Target) -> Writing {
        match target.spec().format {
            TargetFormat::Raw => Writing::default(),
            TargetFormat::Qcow2(spec) => Writing {
                cluster: spec.cluster_size,
                encoder: spec
                    .compression
                    .map_or(0, |encoding| encoding.encoder_bytes(spec.cluster_size)),
            },
        }
    }

    /// Begins to write a disk of `disk` bytes, if that is known.
    pub(super) fn begin(mut target: Target, disk: Option<u64>, layout: &Layout) -> Result<Self> {
        let TargetFormat::Qcow2(spec) = target.spec().format else {
            return Ok(Self::Raw(Box::new(target)));
        };
        let size = target.spec().size;
        let cache = layout.tables / 4;
        let params = Params {
            cluster_size: spec.cluster_size,
            virtual_size: size.or(disk),
            codec: codec_of(spec),
            cache,
            limits: Limits::with_table_bytes(layout.tables - cache),
        };
        match Writer::new(&params, &mut target) {
            Ok(writer) => Ok(Self::Qcow2(Box::new(Image {
                target,
                writer,
                size,
            }))),
            Err(e) => Err(explain(e, &target)),
        }
    }

    /// How the image's clusters are compressed, and their size; `None` for a raw disk.
    pub(super) fn clusters(&self) -> Option<(u64, Option<Encoding>)> {
        match self {
            Self::Raw(_) => None,
            Self::Qcow2(image) => match image.target.spec().format {
                TargetFormat::Raw => None,
                TargetFormat::Qcow2(spec) => Some((spec.cluster_size, spec.compression)),
            },
        }
    }

    pub(super) fn write(&mut self, batch: &Batch) -> Result<()> {
        match (self, &batch.content) {
            (Self::Raw(target), Content::Runs(runs)) => {
                for (guest, run) in runs {
                    target.write(*guest, &batch.buf[run.clone()])?;
                }
                Ok(())
            }
            (Self::Qcow2(image), Content::Clusters { stored, runs }) => {
                image.write(&batch.buf, stored, runs)
            }
            (Self::Raw(target), Content::Clusters { .. }) => Err(Error::image(
                format!("can't write {}", target.spec().path.display()),
                longshore_image::Error::malformed("clusters for a raw disk"),
            )),
            (Self::Qcow2(image), Content::Runs(_)) => Err(Error::image(
                format!("can't write {}", image.target.spec().path.display()),
                longshore_image::Error::malformed("loose bytes for an image"),
            )),
        }
    }

    /// Bytes written so far.
    pub(super) fn bytes_written(&self) -> u64 {
        match self {
            Self::Raw(target) => target.bytes_written(),
            Self::Qcow2(image) => image.target.bytes_written(),
        }
    }

    /// See [`Target::shares_blocks_of`].
    pub(super) fn shares_blocks_of(&self) -> Option<u64> {
        match self {
            Self::Raw(target) => target.shares_blocks_of(),
            Self::Qcow2(_) => None,
        }
    }

    /// See [`Target::checkpoint`].
    pub(super) fn checkpoint(&mut self, recorder: &Recorder) -> Result<()> {
        match self {
            Self::Raw(target) => target.checkpoint(recorder),
            Self::Qcow2(_) => Ok(()),
        }
    }

    /// True if zeros must be written like all else.
    pub(super) fn keeps_zeros(&self) -> bool {
        match self {
            Self::Raw(target) => target.is_in_place(),
            Self::Qcow2(_) => false,
        }
    }

    /// `guest` reads as zeros: does what that takes where something else may be.
    pub(super) fn clear(&mut self, guest: Range<u64>) -> Result<()> {
        match self {
            Self::Raw(target) => target.clear(guest),
            Self::Qcow2(_) => Ok(()),
        }
    }

    /// See [`Target::share`].
    pub(super) fn share(&mut self, guest: u64, from: BorrowedFd<'_>, at: u64, len: u64) -> bool {
        match self {
            Self::Raw(target) => target.share(guest, from, at, len),
            Self::Qcow2(_) => false,
        }
    }

    /// All of a disk of `disk` bytes is written: completes it.
    pub(super) fn finish(self, disk: u64) -> Result<Moved> {
        match self {
            Self::Raw(mut target) => {
                target.finish(disk)?;
                Ok(Moved::by(&target))
            }
            Self::Qcow2(image) => image.finish(disk),
        }
    }
}

impl Image {
    fn write(&mut self, buf: &[u8], stored: &[Stored], runs: &[Range<usize>]) -> Result<()> {
        if let Some(size) = self.size
            && let Some(beyond) = stored.iter().find(|cluster| cluster.guest >= size)
        {
            return Err(self.too_small(beyond.guest + 1, size));
        }
        let Self { target, writer, .. } = self;
        writer
            .put(target, buf, stored, runs)
            .map_err(|e| explain(e, target))
    }

    fn finish(self, disk: u64) -> Result<Moved> {
        if let Some(size) = self.size.filter(|size| *size < disk) {
            return Err(self.too_small(disk, size));
        }
        let Self {
            mut target,
            writer,
            size,
        } = self;
        let len = match writer.finish(&mut target, disk, size.unwrap_or(disk)) {
            Ok(len) => len,
            Err(e) => return Err(explain(e, &target)),
        };
        target.finish(len)?;
        Ok(Moved::by(&target))
    }

    fn too_small(&self, needed: u64, available: u64) -> Error {
        let what = format!(
            "the requested size of {}",
            self.target.spec().path.display()
        );
        Error::TooSmall {
            needed,
            available,
            what,
        }
    }
}

fn codec_of(spec: Qcow2Spec) -> ClusterCodec {
    spec.compression
        .map_or(ClusterCodec::Deflate, Encoding::codec)
}

fn explain(e: WriteError<Error>, target: &Target) -> Error {
    match e {
        WriteError::Store(e) => e,
        WriteError::Image(e) => {
            let path = target.spec().path.display();
            Error::image(format!("can't write the image {path}"), e)
        }
    }
}
