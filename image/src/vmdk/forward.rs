//! Which kind of VMDK passes by: decided when its header and descriptor have.

use super::descriptor::Descriptor;
use super::disk::check_cowd_alone;
use super::header::Header;
use super::kind::{Kind, lone_extent, not_this_format};
use super::sparse::SparseLayout;
use super::stream::Stream;
use super::{geometry, refuse_text, several};
use crate::forward::{Decoder, Emit, Finish, Mapped, Options, Upcoming};
use crate::num::{to_u64, to_usize};
use crate::{DenyAll, Error, ErrorKind, OpenGate, Result};

/// Where the descriptor may end, in bytes: it is kept until it is read.
const MAX_HEAD: u64 = 2 << 20;

/// A descriptor that is a file of its own is looked at up to here.
const MAX_TEXT: usize = 64 << 10;

/// A VMDK of either kind.
#[derive(Debug)]
pub(super) enum Forward {
    /// Its head has not passed yet.
    Head {
        /// What has.
        buf: Vec<u8>,
        /// What to make the decoder with.
        options: Option<Options>,
    },
    /// Tables, then grains.
    Sparse(Box<Mapped<SparseLayout>>),
    /// Markers.
    Stream(Box<Stream>),
}

impl Forward {
    pub(super) fn new(options: Options) -> Self {
        Self::Head {
            buf: Vec::new(),
            options: Some(options),
        }
    }

    /// Goes on to the right decoder once the head is here; `eof` if no more of it comes.
    fn decide(
        buf: &mut Vec<u8>,
        options: &mut Option<Options>,
        eof: bool,
        out: &mut dyn Emit,
    ) -> Result<Step> {
        if buf.len() < Header::LEN && !eof {
            return Ok(Step::Wait(Header::LEN));
        }
        let Some(limits) = options.as_ref().map(|o| o.limits.clone()) else {
            return Err(found_bad());
        };
        let header = match Kind::of(buf) {
            Kind::Sparse => Header::parse(buf, &limits)?,
            Kind::Cowd => Header::parse_cowd(buf, &limits)?,
            Kind::SeSparse => return Err(lone_extent("a seSparse extent of an ESX host")),
            Kind::Text if buf.len() < MAX_TEXT && !eof => return Ok(Step::Wait(MAX_TEXT)),
            Kind::Text => return Err(refuse_text(buf)),
            Kind::Other => return Err(not_this_format()),
        };
        let text = match header.descriptor() {
            Some(text) if text.end > MAX_HEAD => {
                return Err(Error::unsupported(
                    "the descriptor is not at the start of this VMDK, so it can't be read from a stream",
                )
                .at(text.start));
            }
            Some(text) if to_u64(buf.len()) < text.end => {
                if eof {
                    return Err(Error::malformed(
                        "the file ends inside its descriptor: it is truncated",
                    )
                    .at(text.start));
                }
                return Ok(Step::Wait(to_usize(text.end)));
            }
            Some(text) => buf
                .get(to_usize(text.start)..to_usize(text.end))
                .unwrap_or_default(),
            None => &[],
        };
        let descriptor = Descriptor::parse(text)?;
        if header.is_cowd() {
            check_cowd_alone(&header)?;
        } else if header.virtual_size() == 0 && several::are_meant(&descriptor) {
            return Err(refuse_text(text));
        } else {
            descriptor.check_single_file(header.is_stream())?;
        }
        if let Some(parent) = descriptor.parent()? {
            // There is no way to read a second file along with a stream.
            DenyAll.open(&parent)?;
        }
        let geometry = geometry(&header, &descriptor)?;
        let Some(options) = options.take() else {
            return Err(found_bad());
        };
        let mut inner = if header.is_stream() {
            Self::Stream(Box::new(Stream::new(header, geometry, &limits)?))
        } else {
            let layout = SparseLayout::new(header, geometry, &options)?;
            Self::Sparse(Box::new(Mapped::new(layout, options)))
        };
        inner.push(&std::mem::take(buf), out)?;
        Ok(Step::Go(inner))
    }
}

/// What [`Forward::decide`] came to.
enum Step {
    /// It needs to see this many bytes.
    Wait(usize),
    /// The rest goes there.
    Go(Forward),
}

fn found_bad() -> Error {
    Error::new(
        ErrorKind::Misuse,
        "this VMDK was found to be unreadable before",
    )
}

impl Decoder for Forward {
    fn push(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        match self {
            Self::Sparse(inner) => inner.push(bytes, out),
            Self::Stream(inner) => inner.push(bytes, out),
            Self::Head { buf, options } => {
                let mut rest = bytes;
                loop {
                    // No more is kept than the head takes, however much is pushed at once.
                    match Self::decide(buf, options, false, out)? {
                        Step::Wait(_) if rest.is_empty() => return Ok(()),
                        Step::Wait(len) => {
                            let n = len.saturating_sub(buf.len()).min(rest.len());
                            let (head, tail) = rest.split_at_checked(n).unwrap_or((rest, &[]));
                            buf.extend_from_slice(head);
                            rest = tail;
                        }
                        Step::Go(mut inner) => {
                            inner.push(rest, out)?;
                            *self = inner;
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn upcoming(&self) -> Upcoming {
        match self {
            Self::Head { .. } => Upcoming::Bytes(Header::LEN),
            Self::Sparse(inner) => inner.upcoming(),
            Self::Stream(inner) => inner.upcoming(),
        }
    }

    fn pass(&mut self, n: u64) -> Result<()> {
        match self {
            Self::Stream(inner) => inner.pass(n),
            Self::Head { .. } | Self::Sparse(_) => Err(Error::new(
                ErrorKind::Misuse,
                "these bytes of the image have to be seen",
            )),
        }
    }

    fn safe_point(&self) -> Option<u64> {
        match self {
            Self::Sparse(inner) => inner.safe_point(),
            Self::Head { .. } | Self::Stream(_) => None,
        }
    }

    fn skip_to(&mut self, at: u64, out: &mut dyn Emit) -> Result<bool> {
        match self {
            Self::Sparse(inner) => inner.skip_to(at, out),
            Self::Head { .. } | Self::Stream(_) => Ok(false),
        }
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        if let Self::Head { buf, options } = self
            && let Step::Go(inner) = Self::decide(buf, options, true, out)?
        {
            *self = inner;
        }
        match self {
            Self::Sparse(inner) => inner.finish(out),
            Self::Stream(inner) => inner.finish(out),
            Self::Head { .. } => Err(Error::malformed(
                "the file ends inside its header: it is truncated",
            )),
        }
    }
}
