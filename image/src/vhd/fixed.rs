//! A fixed disk in a stream: the disk's bytes, and at the end the footer that says so.
//!
//! The last 512 bytes are held back until the stream has ended. What they say decides:
//! - **asked for as a VHD**, they have to be a footer;
//! - **probed** (the beginning of the stream said nothing), they are a footer only if it is good in every
//!   respect and accounts for the whole stream to the byte; else they are the end of a raw disk.
//!
//! The size of the disk is known at the end only, and may turn out smaller than what has passed: whoever
//! takes the pieces cuts the disk there.

use super::footer::{End, Footer, Kind, LEN};
use super::{SizeRule, parent};
use crate::cluster::ClusterCodec;
use crate::forward::{Decoder, Emit, Finish, Geometry, PieceKind};
use crate::num::to_u64;
use crate::{Compression, Error, Format, Info, Result};

/// See the module.
#[derive(Debug)]
pub(super) struct Fixed {
    asked: Asked,
    /// Length of the stream, if it was announced.
    len: Option<u64>,
    held: Vec<u8>,
    /// Bytes handed out.
    pos: u64,
    begun: bool,
    found: Option<Info>,
}

#[derive(Debug)]
enum Asked {
    /// Whatever it is.
    Probing,
    /// A VHD, about which nothing is known yet.
    Vhd(SizeRule),
    /// A VHD whose end was looked at before.
    Known(SizeRule, Footer),
}

impl Fixed {
    /// A stream whose beginning said nothing, of `len` bytes if that is known.
    pub(super) fn probing(len: Option<u64>) -> Self {
        Self::new(Asked::Probing, len)
    }

    /// A stream that is a VHD. `known` is the footer, if it could be looked at.
    pub(super) fn vhd(rule: SizeRule, known: Option<Footer>, len: Option<u64>) -> Self {
        let asked = match known {
            Some(footer) => Asked::Known(rule, footer),
            None => Asked::Vhd(rule),
        };
        Self::new(asked, len)
    }

    fn new(asked: Asked, len: Option<u64>) -> Self {
        Self {
            asked,
            len,
            held: Vec::new(),
            pos: 0,
            begun: false,
            found: None,
        }
    }

    fn begin(&mut self, out: &mut dyn Emit) -> Result<()> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        let (virtual_size, info) = match &self.asked {
            Asked::Known(_, footer) => (Some(footer.size()), super::info(footer, "fixed", None)),
            Asked::Vhd(_) => (None, unread(Format::Vhd(SizeRule::Creator), "fixed")),
            Asked::Probing => {
                let mut info = unread(Format::Raw, "");
                info.features
                    .push("unless it is a fixed VHD, which only its end tells".to_owned());
                (None, info)
            }
        };
        out.geometry(&Geometry {
            virtual_size,
            cluster_size: 0,
            codec: ClusterCodec::None,
            info,
        })
    }

    /// Hands out bytes of the disk; not what is past its end, if that is known.
    fn emit(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        let end = match &self.asked {
            Asked::Known(_, footer) => footer.size(),
            _ => u64::MAX,
        };
        let left = usize::try_from(end.saturating_sub(self.pos)).unwrap_or(usize::MAX);
        let visible = bytes.get(..left).unwrap_or(bytes);
        if !visible.is_empty() {
            let end = self.pos.saturating_add(to_u64(visible.len()));
            out.piece(self.pos..end, PieceKind::Plain, visible)?;
        }
        self.pos = self.pos.saturating_add(to_u64(bytes.len()));
        Ok(())
    }

    /// All bytes of the stream so far.
    fn total(&self) -> u64 {
        self.pos.saturating_add(to_u64(self.held.len()))
    }

    /// The stream is over: the footer, or `None` if it is a raw disk.
    fn end(&self) -> Result<Option<End>> {
        let total = self.total();
        let rule = match &self.asked {
            Asked::Probing => SizeRule::Creator,
            Asked::Vhd(rule) | Asked::Known(rule, _) => *rule,
        };
        let end = match (End::find(&self.held, rule), &self.asked) {
            (Ok(end), Asked::Probing) if end.is_fixed_disk(total) => end,
            (_, Asked::Probing) => return Ok(None),
            (end, _) => end?,
        };
        match end.footer.kind() {
            Kind::Fixed => end.check_fixed(total)?,
            Kind::Dynamic => {
                return Err(Error::unsupported(
                    "the copy of the footer in front of this VHD is damaged, so it can't be read from a \
                     stream: give it as a file",
                ));
            }
            Kind::Differencing => return Err(parent::refuse_stream()),
        }
        Ok(Some(end))
    }
}

/// What to show of a disk whose end has not been seen.
fn unread(format: Format, variant: &str) -> Info {
    Info {
        format,
        variant: variant.to_owned(),
        virtual_size: 0,
        cluster_size: None,
        compression: Compression::None,
        features: Vec::new(),
        references: Vec::new(),
    }
}

impl Decoder for Fixed {
    fn push(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        self.begin(out)?;
        let total = self.total().saturating_add(to_u64(bytes.len()));
        if self.len.is_some_and(|len| total > len) {
            return Err(Error::malformed(
                "the stream is longer than its announced length",
            ));
        }
        let known = self.held.len().saturating_add(bytes.len());
        let release = known.saturating_sub(LEN);
        let mut held = std::mem::take(&mut self.held);
        let (old, keep) = held.split_at(release.min(held.len()));
        self.emit(old, out)?;
        let (new, rest) = bytes
            .split_at_checked(release.saturating_sub(old.len()))
            .unwrap_or((bytes, &[]));
        debug_assert!(keep.is_empty() || new.is_empty());
        self.emit(new, out)?;
        let gone = old.len();
        held.drain(..gone);
        held.extend_from_slice(rest);
        self.held = held;
        Ok(())
    }

    fn safe_point(&self) -> Option<u64> {
        Some(self.pos)
    }

    fn skip_to(&mut self, at: u64, out: &mut dyn Emit) -> Result<bool> {
        self.begin(out)?;
        self.held.clear();
        self.pos = at;
        Ok(true)
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        self.begin(out)?;
        let total = self.total();
        if let Some(len) = self.len.filter(|&len| len != total) {
            return Err(Error::malformed(format!(
                "the stream ended after {total} of {len} bytes: it is truncated"
            )));
        }
        let end = self.end()?;
        let held = std::mem::take(&mut self.held);
        let footer_len = end.as_ref().map_or(0, |end| end.len);
        let data = held
            .len()
            .saturating_sub(usize::try_from(footer_len).unwrap_or(0));
        self.emit(held.get(..data).unwrap_or_default(), out)?;
        let info = match &end {
            Some(end) => super::info(&end.footer, "fixed", None),
            None => Info {
                virtual_size: total,
                ..unread(Format::Raw, "")
            },
        };
        let virtual_size = info.virtual_size;
        self.found = Some(info);
        if let Asked::Known(_, footer) = &self.asked
            && footer.size() != virtual_size
        {
            return Err(Error::malformed("the footer changed while it was read"));
        }
        Ok(Finish::Done { virtual_size })
    }

    fn found(&self) -> Option<Info> {
        self.found.clone()
    }
}
