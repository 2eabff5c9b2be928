//! The disk's bytes from an imageio server: several ranges at the same time, in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use bytes::Bytes;
use longshore_transfer::{Allowance, Piece, Served};
use tokio::task::AbortHandle;

use super::alive::Alive;
use super::engine::Transfer;
use super::extents::{Extents, Kind};
use crate::http::{Fetch, HttpError, Net, TICK};

/// What one request brings at the most. The server takes its time with each.
const MOST_PART: u64 = 4 << 20;
/// Nor less, if the memory allows.
const LEAST_PART: u64 = 256 << 10;
/// Parts under way and come at the most.
const MOST_SLOTS: usize = 64;

/// A request under way.
struct Flight {
    range: Range<u64>,
    answer: Receiver<Result<Bytes, HttpError>>,
    task: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Slot {
    Zeros(Range<u64>),
    Data(Flight),
}

/// A disk being handed out.
pub(super) struct Disk {
    pub(super) name: String,
    pub(super) net: Arc<Net>,
    pub(super) fetch: Fetch,
    pub(super) plan: VecDeque<(Range<u64>, Kind)>,
    pub(super) size: u64,
    /// Requests at the same time, at the most.
    pub(super) readers: usize,
    pub(super) allowance: Allowance,
    pub(super) transfer: Arc<Transfer>,
    pub(super) alive: Arc<Alive>,
    slots: VecDeque<Slot>,
    current: Bytes,
}

/// What a disk is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) net: Arc<Net>,
    pub(super) fetch: Fetch,
    pub(super) readers: usize,
    pub(super) allowance: Allowance,
    pub(super) transfer: Arc<Transfer>,
    pub(super) alive: Arc<Alive>,
}

impl Disk {
    pub(super) fn new(parts: Parts, extents: &Extents) -> Self {
        let Parts {
            name,
            net,
            fetch,
            readers,
            allowance,
            transfer,
            alive,
        } = parts;
        Self {
            name,
            net,
            fetch,
            plan: extents.iter().collect(),
            size: extents.size(),
            readers: readers.max(1),
            allowance,
            transfer,
            alive,
            slots: VecDeque::new(),
            current: Bytes::new(),
        }
    }

    fn flights(&self) -> usize {
        let flights = self
            .slots
            .iter()
            .filter(|slot| matches!(slot, Slot::Data(_)));
        flights.count()
    }

    /// Asks for as much as there is room for.
    fn fill(&mut self) {
        let allowed = self.allowance.bytes();
        let part = (allowed / self.readers as u64).clamp(LEAST_PART, MOST_PART);
        let most = usize::try_from(allowed / part).unwrap_or(1);
        let most = most.clamp(1, self.readers);
        while self.slots.len() < MOST_SLOTS {
            let flights = self.flights();
            let Some((range, kind)) = self.plan.front_mut() else {
                return;
            };
            match kind {
                Kind::Same => {
                    self.plan.pop_front();
                }
                Kind::Zeros => {
                    self.slots.push_back(Slot::Zeros(range.clone()));
                    self.plan.pop_front();
                }
                Kind::Data => {
                    if flights >= most {
                        return;
                    }
                    let end = ((range.start / part + 1) * part).min(range.end);
                    let now = range.start..end;
                    range.start = end;
                    if range.is_empty() {
                        self.plan.pop_front();
                    }
                    let flight = self.ask(now);
                    self.slots.push_back(Slot::Data(flight));
                }
            }
        }
    }

    fn ask(&self, range: Range<u64>) -> Flight {
        let (sender, answer) = channel();
        let (fetch, alive) = (self.fetch.clone(), Arc::clone(&self.alive));
        let (start, len) = (range.start, range.end - range.start);
        let task = self.net.spawn(async move {
            let bytes = fetch.range(start, len).await;
            alive.touch();
            // Nobody waits any more if this fails.
            let _ = sender.send(bytes);
        });
        Flight {
            range,
            answer,
            task,
        }
    }

    fn failed(&self, source: HttpError) -> longshore_transfer::Error {
        match source {
            HttpError::Cancelled => longshore_transfer::Error::Interrupted,
            source => longshore_transfer::Error::Source {
                name: self.name.clone(),
                // What the engine did to the transfer says more than what the server says then.
                source: match self.transfer.ended() {
                    Some(ended) => Box::new(ended),
                    None => Box::new(source),
                },
            },
        }
    }
}

impl Served for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn only(&mut self, wanted: Vec<Range<u64>>) {
        let plan = std::mem::take(&mut self.plan);
        self.plan = restricted(plan, &wanted);
    }

    fn next(&mut self) -> longshore_transfer::Result<Piece<'_>> {
        if self.net.is_cancelled() {
            return Err(longshore_transfer::Error::Interrupted);
        }
        self.current = Bytes::new();
        self.fill();
        match self.slots.front() {
            None => {
                self.transfer.complete();
                Ok(Piece::End)
            }
            Some(Slot::Zeros(range)) => {
                let range = range.clone();
                self.slots.pop_front();
                Ok(Piece::Zeros(range))
            }
            Some(Slot::Data(flight)) => match flight.answer.recv_timeout(TICK) {
                Ok(Ok(bytes)) => {
                    let at = flight.range.start;
                    self.current = bytes;
                    self.slots.pop_front();
                    Ok(Piece::Data(at, &self.current))
                }
                Ok(Err(e)) => Err(self.failed(e)),
                Err(RecvTimeoutError::Timeout) => Ok(Piece::Waiting),
                Err(RecvTimeoutError::Disconnected) => Err(self.failed(HttpError::Thread {
                    source: std::io::Error::other("a request ended without an answer"),
                })),
            },
        }
    }
}

/// What of `plan` is in `wanted`; both are in order.
fn restricted(
    plan: impl IntoIterator<Item = (Range<u64>, Kind)>,
    wanted: &[Range<u64>],
) -> VecDeque<(Range<u64>, Kind)> {
    let mut rest = VecDeque::new();
    let mut wanted = wanted.iter().peekable();
    for (part, kind) in plan {
        while let Some(next) = wanted.peek() {
            let both = part.start.max(next.start)..part.end.min(next.end);
            if !both.is_empty() {
                rest.push_back((both, kind));
            }
            if next.end > part.end {
                break;
            }
            wanted.next();
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_left_of_a_plan() {
        let plan = [
            (0..10, Kind::Data),
            (10..50, Kind::Zeros),
            (50..100, Kind::Data),
        ];
        for (wanted, expected) in [
            (
                vec![0..60, 60..100],
                [&plan[..2], &[(50..60, Kind::Data), (60..100, Kind::Data)]].concat(),
            ),
            (vec![], vec![]),
            (
                vec![2..4, 6..20, 60..70, 90..100],
                vec![
                    (2..4, Kind::Data),
                    (6..10, Kind::Data),
                    (10..20, Kind::Zeros),
                    (60..70, Kind::Data),
                    (90..100, Kind::Data),
                ],
            ),
            (
                vec![10..12, 50..100],
                vec![(10..12, Kind::Zeros), (50..100, Kind::Data)],
            ),
        ] {
            assert_eq!(restricted(plan.clone(), &wanted), expected, "{wanted:?}");
        }
    }
}
