//! streamOptimized as it passes by: driven by the markers, checked against the tables.
//!
//! ```text
//! header | descriptor | front: tables, if the header knows their place | overHead
//!   grain: lba size zlib.. pad | grain | ... in any order
//!   GT marker, table | ... | GD marker, directory | footer marker, footer | end-of-stream marker
//! ```
//! VMware and `VirtualBox` write tables behind their grains and the footer last. QEMU and open-vmdk go
//! back and fill in tables at the front, and there need not be an end marker, so there the tables tell
//! whether the file is complete; gaps of zeros between grains are QEMU's, after a file was reopened.

mod ledger;

use std::ops::Range;

use zerocopy::FromBytes;

use self::ledger::Ledger;
use super::header::{Directory, Header};
use super::layout::{
    MARKER_EOS, MARKER_FOOTER, MARKER_GRAIN_DIRECTORY, MARKER_GRAIN_TABLE, MARKER_LEN,
    MARKER_PROGRESS, Marker, MarkerRest, SECTOR,
};
use super::map;
use crate::forward::{Decoder, Emit, Finish, Geometry, PieceKind, Upcoming};
use crate::num::{to_u64, to_usize};
use crate::{Error, Limits, Reservation, Result};

/// A stream of markers and grains.
#[derive(Debug)]
pub(super) struct Stream {
    header: Header,
    geometry: Geometry,
    limits: Limits,
    ledger: Ledger,
    state: State,
    /// Where the next byte to be used is.
    pos: u64,
    /// Bytes from there that are not enough for the next step.
    buf: Vec<u8>,
    begun: bool,
    directories: Vec<Capture>,
    footer: Option<Header>,
    _charge: Reservation,
}

#[derive(Debug)]
enum State {
    /// Nothing of interest up to here, in bytes.
    Skip { until: u64, then: Next },
    /// Between the header and the first marker.
    Front,
    /// A marker comes.
    Marker,
    /// The rest of a marker that is no grain.
    Rest { value: u64 },
    /// Sectors behind a marker.
    Payload { kind: u32, left: u64 },
    /// A grain comes.
    Grain { guest: Range<u64>, size: u64 },
    /// Nothing comes.
    End,
}

/// What follows a skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Front,
    Marker,
}

/// A grain directory, caught as it passes.
#[derive(Debug)]
struct Capture {
    /// In sectors.
    at: u64,
    bytes: Vec<u8>,
    _charge: Reservation,
}

impl Stream {
    pub(super) fn new(header: Header, geometry: Geometry, limits: &Limits) -> Result<Self> {
        let charge = limits.reserve(header.max_packed(), "a compressed grain")?;
        let mut this = Self {
            ledger: Ledger::new(header.clone(), limits.clone()),
            geometry,
            limits: limits.clone(),
            state: State::Skip {
                until: SECTOR,
                then: Next::Front,
            },
            pos: 0,
            buf: Vec::new(),
            begun: false,
            directories: Vec::new(),
            footer: None,
            _charge: charge,
            header,
        };
        if let Directory::At(primary) = this.header.directory() {
            for at in [Some(primary), this.header.redundant()]
                .into_iter()
                .flatten()
            {
                this.capture(at)?;
            }
        }
        Ok(this)
    }

    /// Catches a directory at sector `at`.
    fn capture(&mut self, at: u64) -> Result<()> {
        let len = self.header.directory_bytes();
        let charge = self.limits.reserve(len, "the grain directory")?;
        self.directories.push(Capture {
            at,
            bytes: Vec::with_capacity(to_usize(len)),
            _charge: charge,
        });
        Ok(())
    }

    /// How many bytes the next step takes; they come in one piece.
    fn wanted(&self) -> u64 {
        match &self.state {
            State::Skip { .. } | State::End => 0,
            State::Front | State::Payload { .. } => SECTOR,
            State::Marker => MARKER_LEN,
            State::Rest { .. } => SECTOR.saturating_sub(MARKER_LEN),
            State::Grain { size, .. } => *size,
        }
    }

    fn step(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        let sector = self.pos / SECTOR;
        self.pos = self.pos.saturating_add(to_u64(bytes.len()));
        match &mut self.state {
            State::Skip { .. } | State::End => Ok(()),
            State::Front => {
                self.metadata(sector, bytes)?;
                self.front_or_marker();
                Ok(())
            }
            State::Marker => self.marker(sector, bytes),
            State::Rest { value } => {
                let value = *value;
                self.rest(value, bytes)
            }
            State::Payload { kind, left } => {
                let kind = *kind;
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.state = State::Marker;
                }
                if kind == MARKER_FOOTER {
                    let footer = Header::parse(bytes, &self.limits)?;
                    self.footer = Some(self.header.with_footer(&footer)?);
                    return Ok(());
                }
                self.metadata(sector, bytes)
            }
            State::Grain { guest, .. } => {
                let guest = guest.clone();
                self.skip_to(self.pos.next_multiple_of(SECTOR), Next::Marker);
                out.piece(guest, PieceKind::Compressed, bytes)
            }
        }
    }

    fn front_or_marker(&mut self) {
        let front = self.pos < self.header.data_start().saturating_mul(SECTOR);
        self.state = if front { State::Front } else { State::Marker };
    }

    fn skip_to(&mut self, until: u64, then: Next) {
        self.state = State::Skip { until, then };
    }

    /// `n` bytes of a skip went by.
    fn skipped(&mut self, n: u64, until: u64, then: Next) {
        self.pos = self.pos.saturating_add(n);
        if self.pos >= until {
            match then {
                Next::Front => self.front_or_marker(),
                Next::Marker => self.state = State::Marker,
            }
        }
    }

    /// A sector that is neither a marker nor a grain.
    fn metadata(&mut self, sector: u64, bytes: &[u8]) -> Result<()> {
        let len = to_usize(self.header.directory_bytes());
        for capture in &mut self.directories {
            let have = capture.bytes.len();
            let next = capture.at.saturating_mul(SECTOR).checked_add(to_u64(have));
            if have < len && next == sector.checked_mul(SECTOR) {
                let wanted = len.saturating_sub(have).min(bytes.len());
                capture
                    .bytes
                    .extend_from_slice(bytes.get(..wanted).unwrap_or_default());
            }
        }
        self.ledger.metadata(sector, bytes)
    }

    fn marker(&mut self, sector: u64, bytes: &[u8]) -> Result<()> {
        let at = sector.saturating_mul(SECTOR);
        let marker = Marker::ref_from_bytes(bytes)
            .map_err(|_| Error::malformed("the stream ended inside a marker").at(at))?;
        let (value, size) = (marker.value.get(), u64::from(marker.size.get()));
        if size == 0 {
            self.state = State::Rest { value };
            return Ok(());
        }
        if self.footer.is_some() {
            return Err(Error::malformed("a grain follows the footer").at(at));
        }
        if size > self.header.max_packed() {
            return Err(Error::malformed(format!(
                "a compressed grain of {size} bytes is not possible, for they hold {}",
                self.header.grain_bytes()
            ))
            .at(at));
        }
        let guest = self
            .ledger
            .grain(value, sector)
            .map_err(|e| match e.kind() {
                crate::ErrorKind::Malformed => e.at(at),
                _ => e,
            })?;
        self.state = State::Grain { guest, size };
        Ok(())
    }

    fn rest(&mut self, value: u64, bytes: &[u8]) -> Result<()> {
        let at = self.pos.saturating_sub(SECTOR);
        let rest = MarkerRest::ref_from_bytes(bytes)
            .map_err(|_| Error::malformed("the stream ended inside a marker").at(at))?;
        let kind = rest.kind.get();
        let in_footer = self.header.directory() == Directory::InFooter;
        let right_size = match kind {
            MARKER_EOS => value == 0,
            MARKER_GRAIN_TABLE => value >= self.header.table_sectors(),
            MARKER_GRAIN_DIRECTORY => value >= self.header.directory_bytes().div_ceil(SECTOR),
            MARKER_FOOTER => value == 1,
            MARKER_PROGRESS => true,
            _ => {
                return Err(
                    Error::malformed(format!("a marker of the unknown type {kind}")).at(at),
                );
            }
        };
        if !right_size {
            return Err(Error::malformed(format!(
                "a marker of type {kind} can't be followed by {value} sectors"
            ))
            .at(at));
        }
        if kind == MARKER_EOS {
            if !in_footer {
                // An end mark, or the zeros between grains: more may follow.
                self.state = State::Marker;
                return Ok(());
            }
            if self.footer.is_none() {
                return Err(Error::malformed("the stream ends without a footer").at(at));
            }
            self.state = State::End;
            return Ok(());
        }
        if self.footer.is_some() {
            return Err(Error::malformed("a marker other than the end follows the footer").at(at));
        }
        if kind == MARKER_GRAIN_DIRECTORY && in_footer {
            // The last two: there may be a redundant one.
            if self.directories.len() > 1 {
                self.directories.remove(0);
            }
            self.capture(self.pos / SECTOR)?;
        }
        self.state = match (kind, value) {
            // What its number means is not known; VirtualBox found nothing behind it either.
            (MARKER_PROGRESS, _) | (_, 0) => State::Marker,
            (_, left) => State::Payload { kind, left },
        };
        Ok(())
    }

    /// The tables agree with what passed.
    fn verify(&self) -> Result<()> {
        let header = self.footer.as_ref().unwrap_or(&self.header);
        let Directory::At(primary) = header.directory() else {
            return Err(Error::malformed("the stream has no footer"));
        };
        // The copy stands in exactly where it does with random access.
        let mut unusable = None;
        for at in [Some(primary), header.redundant()].into_iter().flatten() {
            if let Err(e) = map::check_directory(&self.header, at, self.pos) {
                unusable = unusable.or(Some(e));
                continue;
            }
            let directory = self.directory_at(at)?;
            match map::check_tables(&self.header, directory, self.pos) {
                Ok(()) => {
                    self.ledger.usable(directory)?;
                    return self.ledger.verify(directory);
                }
                Err(e) => unusable = unusable.or(Some(e)),
            }
        }
        Err(unusable.unwrap_or_else(|| Error::malformed("there is no grain directory")))
    }

    fn directory_at(&self, at: u64) -> Result<&[u8]> {
        let len = to_usize(self.header.directory_bytes());
        self.directories
            .iter()
            .find(|capture| capture.at == at && capture.bytes.len() == len)
            .map(|capture| capture.bytes.as_slice())
            .ok_or_else(|| {
                Error::malformed("there is no grain directory where the header has it")
                    .at(at.saturating_mul(SECTOR))
            })
    }

    fn truncated(&self) -> Error {
        Error::malformed("the stream ends before it is complete: it is truncated").at(self.pos)
    }
}

impl Decoder for Stream {
    fn push(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        if !self.begun {
            self.begun = true;
            out.geometry(&self.geometry)?;
        }
        let mut input = bytes;
        loop {
            match self.state {
                State::Skip { until, then } => {
                    let n = to_usize(until.saturating_sub(self.pos)).min(input.len());
                    input = input.get(n..).unwrap_or_default();
                    self.skipped(to_u64(n), until, then);
                    if self.pos < until {
                        return Ok(());
                    }
                    continue;
                }
                State::End => {
                    if input.is_empty() {
                        return Ok(());
                    }
                    return Err(Error::malformed("bytes follow the end of the stream").at(self.pos));
                }
                _ => {}
            }
            let wanted = to_usize(self.wanted());
            if self.buf.is_empty() {
                let Some((head, tail)) = input.split_at_checked(wanted) else {
                    self.buf.extend_from_slice(input);
                    return Ok(());
                };
                input = tail;
                self.step(head, out)?;
                continue;
            }
            let missing = wanted.saturating_sub(self.buf.len()).min(input.len());
            let (head, tail) = input.split_at_checked(missing).unwrap_or((input, &[]));
            self.buf.extend_from_slice(head);
            input = tail;
            if self.buf.len() < wanted {
                return Ok(());
            }
            let mut buf = std::mem::take(&mut self.buf);
            self.step(&buf, out)?;
            buf.clear();
            self.buf = buf;
        }
    }

    fn upcoming(&self) -> Upcoming {
        if !self.begun || !self.buf.is_empty() {
            let missing = to_usize(self.wanted()).saturating_sub(self.buf.len());
            return Upcoming::Bytes(missing.max(1));
        }
        match &self.state {
            State::Skip { until, .. } => Upcoming::Padding(until.saturating_sub(self.pos)),
            State::Grain { guest, size } => Upcoming::Compressed {
                guest: guest.clone(),
                len: *size,
            },
            // Nothing may follow, and a byte that does is an error.
            State::End => Upcoming::Bytes(1),
            _ => Upcoming::Bytes(to_usize(self.wanted())),
        }
    }

    fn pass(&mut self, n: u64) -> Result<()> {
        match (self.upcoming(), &self.state) {
            (Upcoming::Padding(most), &State::Skip { until, then }) if n <= most => {
                self.skipped(n, until, then);
                Ok(())
            }
            (Upcoming::Compressed { len, .. }, _) if n == len => {
                self.pos = self.pos.saturating_add(n);
                self.skip_to(self.pos.next_multiple_of(SECTOR), Next::Marker);
                Ok(())
            }
            _ => Err(Error::new(
                crate::ErrorKind::Misuse,
                "these bytes of the stream have to be seen",
            )),
        }
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        self.push(&[], out)?;
        let complete = match (&self.state, self.header.directory()) {
            (State::End, _) => true,
            // Nobody announced an end. Older QEMU does not fill the last sector.
            (State::Marker, Directory::At(_)) => self.buf.iter().all(|&b| b == 0),
            (State::Skip { then, .. }, Directory::At(_)) => *then == Next::Marker,
            (State::Rest { value: 0 }, Directory::At(_)) => self.buf.iter().all(|&b| b == 0),
            _ => false,
        };
        if !complete {
            return Err(self.truncated());
        }
        // What is left is padding.
        self.pos = self.pos.saturating_add(to_u64(self.buf.len()));
        self.buf.clear();
        self.verify()?;
        Ok(Finish::Done {
            virtual_size: self.header.virtual_size(),
        })
    }
}
