//! A stream of grains in a local file: its markers are read in order, which finds everything that reading
//! it as a stream would, and the grains between them by the threads that decode them.

use std::ops::Range;

use longshore_image::chain::{Chain, LayerExtent};
use longshore_image::forward::{Decoder, Emit, Finish, Geometry, PieceKind, Upcoming};
use longshore_image::{Error as ImageError, ErrorKind, Extent, ExtentKind, ReadAt};

use super::decode::{Packed, Task};
use super::output::Home;
use super::planner::PackedTask;
use super::writer::Back;
use super::{Outcome, Shared};
use crate::Error;

/// The file is asked for this much at a time before it is read: markers alone, far apart, do not look
/// like reading from front to back.
const AHEAD: u64 = 4 << 20;
/// Most bytes pushed at once.
const PUSH: usize = 64 << 10;

/// Walks the file and sends tasks until all of it is planned.
pub(super) fn plan(
    mut decoder: Box<dyn Decoder>,
    chain: &Chain,
    back: &Back,
    shared: &Shared,
) -> Result<(), Outcome> {
    let file = chain.layer(0).map_err(|e| shared.image(e))?.data();
    let len = file.len();
    let layout = back.layout();
    let mut packed = PackedTask::default();
    let mut buf = vec![0; PUSH];
    let mut seen = Seen { back, failed: None };
    let (mut at, mut asked) = (0, 0);
    loop {
        if at + AHEAD > asked && asked < len {
            shared.check()?;
            let start = asked.max(at);
            asked = start + AHEAD;
            file.will_read(start..asked.min(len));
        }
        let passed = match decoder.upcoming() {
            Upcoming::Padding(n) if at < len || n == 0 => {
                let n = n.min(len - at);
                decoder.pass(n).map_err(|e| shared.image(e))?;
                n
            }
            Upcoming::Compressed { guest, len: n } if n <= len - at => {
                let cluster = LayerExtent {
                    layer: 0,
                    visible: guest.clone(),
                    extent: Extent {
                        guest,
                        kind: ExtentKind::Compressed {
                            at,
                            len: u32::try_from(n).unwrap_or(u32::MAX),
                        },
                    },
                };
                if shared.is_done(&cluster.visible) {
                    let done = cluster.visible.end - cluster.visible.start;
                    shared.progress.add_resolved(done);
                } else {
                    packed.add(&cluster, at, n, layout, back)?;
                }
                decoder.pass(n).map_err(|e| shared.image(e))?;
                n
            }
            // The rest of a file that is cut, too.
            upcoming => {
                let wanted = match upcoming {
                    Upcoming::Bytes(n) => n.min(PUSH),
                    Upcoming::Padding(_) | Upcoming::Compressed { .. } => PUSH,
                };
                let n = wanted.min(usize::try_from(len - at).unwrap_or(PUSH));
                if n == 0 {
                    break;
                }
                file.read_exact_at(&mut buf[..n], at)
                    .map_err(|e| Error::Source {
                        name: shared.name.to_string(),
                        source: Box::new(e),
                    })?;
                decoder
                    .push(&buf[..n], &mut seen)
                    .map_err(|e| seen.outcome(e, shared))?;
                n as u64
            }
        };
        at += passed;
    }
    packed.send(back)?;
    let finish = decoder
        .finish(&mut seen)
        .map_err(|e| seen.outcome(e, shared))?;
    shared.check()?;
    match finish {
        Finish::Done { .. } => Ok(()),
        Finish::AnotherPass => Err(Outcome::Error(shared.image(ImageError::new(
            ErrorKind::Misuse,
            "a stream of grains does not need to be read twice",
        )))),
    }
}

/// Takes the pieces that came by among pushed bytes.
struct Seen<'a> {
    back: &'a Back,
    failed: Option<Outcome>,
}

impl Seen<'_> {
    fn outcome(&mut self, e: ImageError, shared: &Shared) -> Outcome {
        self.failed
            .take()
            .unwrap_or_else(|| Outcome::Error(shared.image(e)))
    }

    fn send(&self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<(), Outcome> {
        let pool = match kind {
            PieceKind::Compressed => self.back.inputs(),
            PieceKind::Plain => self.back.outputs(),
        };
        let mut buf = pool.get()?;
        let there = buf.get_mut(..bytes.len()).ok_or_else(|| {
            Outcome::Error(Error::image(
                "can't read the image",
                ImageError::malformed("a grain is larger than grains can be"),
            ))
        })?;
        there.copy_from_slice(bytes);
        let task = match kind {
            PieceKind::Compressed => Task::Packed {
                input: buf,
                clusters: vec![Packed {
                    visible: guest.clone(),
                    guest,
                    input: 0..bytes.len(),
                }],
            },
            PieceKind::Plain => Task::Plain {
                buf,
                home: Home::Outputs,
                parts: vec![(guest.start, 0..bytes.len())],
            },
        };
        Ok(self.back.send(task)?)
    }
}

impl Emit for Seen<'_> {
    /// Known from the open image.
    fn geometry(&mut self, _: &Geometry) -> longshore_image::Result<()> {
        Ok(())
    }

    fn piece(
        &mut self,
        guest: Range<u64>,
        kind: PieceKind,
        bytes: &[u8],
    ) -> longshore_image::Result<()> {
        self.send(guest, kind, bytes).map_err(|outcome| {
            self.failed = Some(outcome);
            ImageError::new(ErrorKind::Io, "the target took no more")
        })
    }
}
