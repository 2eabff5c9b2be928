//! A VHD as it passes by: by its first sector a disk with tables, or else a fixed one.

use super::fixed::Fixed;
use super::footer::{self, End, Footer, Found, Kind, LEN};
use super::header::Header;
use super::image::ends;
use super::{SizeRule, parent};
use crate::cluster::ClusterCodec;
use crate::forward::{
    Decoder, Emit, Finish, Geometry, Layout, Mapped, Options, Plan, Segment, SegmentKind, Table,
};
use crate::num::to_u64;
use crate::{Error, ErrorKind, Info, Limits, Result, table};

/// A VHD of any kind.
#[derive(Debug)]
pub(super) enum Forward {
    /// Its first sector has not passed yet.
    Head {
        buf: Vec<u8>,
        options: Option<Box<Options>>,
        rule: SizeRule,
    },
    /// The disk's bytes, then a footer.
    Fixed(Fixed),
    /// Tables, then blocks.
    Mapped(Box<WithTables>),
}

impl Forward {
    pub(super) fn new(options: Options, rule: SizeRule) -> Self {
        Self::Head {
            buf: Vec::new(),
            options: Some(Box::new(options)),
            rule,
        }
    }

    /// What follows, once the first sector is here.
    fn decide(front: &[u8], options: Options, rule: SizeRule) -> Result<Self> {
        let len = options.stream_len;
        // With both ends at hand it is as with random access.
        let found = match &options.side {
            Some(side) => {
                let (_, tail) = ends(side.as_ref())?;
                Some(footer::choose(front, &tail, side.len(), rule)?)
            }
            None => footer::in_front(front, rule).map(Found::Mapped),
        };
        let footer = match found {
            Some(Found::Mapped(footer)) => footer,
            Some(Found::Fixed(footer)) => {
                return Ok(Self::Fixed(Fixed::vhd(rule, Some(footer), len)));
            }
            None => return Ok(Self::Fixed(Fixed::vhd(rule, None, len))),
        };
        if footer.kind() == Kind::Differencing {
            return Err(parent::refuse_stream());
        }
        let layout = Blocks {
            footer,
            limits: options.limits.clone(),
            file: len.unwrap_or(u64::MAX),
            header: None,
            end: 0,
        };
        Ok(Self::Mapped(Box::new(WithTables {
            inner: Mapped::new(layout, options),
            rule,
            tail: Vec::new(),
            total: 0,
        })))
    }

    /// Goes on to the right decoder with what there is of the first sector.
    fn go_on(&mut self, out: &mut dyn Emit) -> Result<()> {
        let Self::Head { buf, options, rule } = self else {
            return Ok(());
        };
        let Some(options) = options.take() else {
            return Err(Error::new(
                ErrorKind::Misuse,
                "this VHD was found to be unreadable before",
            ));
        };
        let front = std::mem::take(buf);
        let mut next = Self::decide(&front, *options, *rule)?;
        next.push(&front, out)?;
        *self = next;
        Ok(())
    }
}

impl Decoder for Forward {
    fn push(&mut self, mut bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        if let Self::Head { buf, .. } = self {
            let n = LEN.saturating_sub(buf.len()).min(bytes.len());
            let (head, rest) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
            buf.extend_from_slice(head);
            if buf.len() < LEN {
                return Ok(());
            }
            self.go_on(out)?;
            bytes = rest;
        }
        match self {
            Self::Fixed(inner) => inner.push(bytes, out),
            Self::Mapped(inner) => inner.push(bytes, out),
            Self::Head { .. } => Ok(()),
        }
    }

    fn safe_point(&self) -> Option<u64> {
        match self {
            Self::Head { .. } => None,
            Self::Fixed(inner) => inner.safe_point(),
            Self::Mapped(inner) => inner.safe_point(),
        }
    }

    fn skip_to(&mut self, at: u64, out: &mut dyn Emit) -> Result<bool> {
        match self {
            Self::Head { .. } => Ok(false),
            Self::Fixed(inner) => inner.skip_to(at, out),
            Self::Mapped(inner) => inner.skip_to(at, out),
        }
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        self.go_on(out)?;
        match self {
            Self::Fixed(inner) => inner.finish(out),
            Self::Mapped(inner) => inner.finish(out),
            Self::Head { .. } => Err(Error::malformed("the stream ended inside the VHD's header")),
        }
    }

    fn found(&self) -> Option<Info> {
        match self {
            Self::Fixed(inner) => inner.found(),
            Self::Mapped(_) | Self::Head { .. } => None,
        }
    }
}

/// The driver, and a look at the end of the stream.
#[derive(Debug)]
pub(super) struct WithTables {
    inner: Mapped<Blocks>,
    rule: SizeRule,
    /// The last 512 bytes so far.
    tail: Vec<u8>,
    /// All bytes so far.
    total: u64,
}

impl WithTables {
    fn push(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        self.total = self.total.saturating_add(to_u64(bytes.len()));
        let last = bytes
            .len()
            .checked_sub(LEN)
            .and_then(|at| bytes.get(at..))
            .unwrap_or(bytes);
        let surplus = self
            .tail
            .len()
            .saturating_add(last.len())
            .saturating_sub(LEN)
            .min(self.tail.len());
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(last);
        self.inner.push(bytes, out)
    }

    /// The tail is seen again.
    fn safe_point(&self) -> Option<u64> {
        let before_tail = self.total.saturating_sub(to_u64(LEN));
        self.inner.safe_point().map(|at| at.min(before_tail))
    }

    fn skip_to(&mut self, at: u64, out: &mut dyn Emit) -> Result<bool> {
        let skipped = self.inner.skip_to(at, out)?;
        if skipped {
            self.total = at;
            self.tail.clear();
        }
        Ok(skipped)
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        let finish = self.inner.finish(out)?;
        let total = std::mem::take(&mut self.total);
        let tail = std::mem::take(&mut self.tail);
        footer::check_agree(End::find(&tail, self.rule).ok().as_ref(), total)?;
        // The disk may end before its last block does.
        if self.inner.layout().end > total {
            return Err(Error::malformed(
                "a block reaches past the end of the image: it is truncated or damaged",
            ));
        }
        Ok(finish)
    }
}

/// Table: the copy of the footer, which is known already.
const FRONT: u64 = u64::MAX;
/// Table: the header. Slices of the block allocation table have their number as id.
const HEADER: u64 = u64::MAX - 1;

/// The tables of a dynamic disk.
#[derive(Debug)]
struct Blocks {
    footer: Footer,
    limits: Limits,
    /// Length of the file, as far as known.
    file: u64,
    header: Option<(Header, Geometry)>,
    /// Where the last block ends.
    end: u64,
}

impl Blocks {
    fn header(&mut self, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let header = Header::parse(bytes, &self.footer)?;
        let slices = header.table_len().div_ceil(table::SLICE);
        let plan_bytes = slices.saturating_mul(to_u64(size_of::<Table>()));
        let _plan = self
            .limits
            .reserve(plan_bytes, "the block allocation table")?;
        for (id, at, len) in table::slices(header.table(), header.table_len()) {
            plan.table(Table {
                at,
                len,
                id,
                peek: false,
            });
        }
        let geometry = Geometry {
            virtual_size: Some(header.virtual_size()),
            cluster_size: 0,
            codec: ClusterCodec::None,
            info: super::info(&self.footer, "dynamic", Some(header.block_size())),
        };
        self.header = Some((header, geometry));
        Ok(())
    }

    fn blocks(&mut self, slice: u64, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let Some((header, _)) = &self.header else {
            return Err(Error::malformed(
                "the block allocation table comes before the header",
            ));
        };
        let segments = to_u64(bytes.len() / 4).saturating_mul(to_u64(size_of::<Segment>()));
        let _plan = self
            .limits
            .reserve(segments, "the block allocation table")?;
        for (index, entry) in table::entries(slice, bytes) {
            if let Some(place) = header.place(entry, self.file)? {
                let guest = header.guest(index);
                let len = guest.end.saturating_sub(guest.start);
                self.end = self.end.max(place.end);
                plan.segment(Segment {
                    at: place.start.saturating_add(header.bitmap_len()),
                    len,
                    guest: guest.start,
                    guest_len: len,
                    kind: SegmentKind::Plain,
                });
            }
        }
        Ok(())
    }
}

impl Layout for Blocks {
    fn start(&self) -> Plan {
        let mut plan = Plan::default();
        plan.table(Table {
            at: 0,
            len: LEN,
            id: FRONT,
            peek: true,
        });
        plan.table(Table {
            at: self.footer.data_offset(),
            len: Header::LEN,
            id: HEADER,
            peek: false,
        });
        plan
    }

    fn table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        match table.id {
            FRONT => {
                plan.skip(0, to_u64(bytes.len()));
                Ok(())
            }
            HEADER => self.header(bytes, plan),
            slice => self.blocks(slice, bytes, plan),
        }
    }

    fn geometry(&self) -> Option<&Geometry> {
        self.header.as_ref().map(|(_, geometry)| geometry)
    }

    /// A block is there as a whole.
    fn tail_is_zeros(&self, _missing: &Segment, _end: u64) -> bool {
        false
    }
}
