//! What a fleet still has to ask for, what it has asked for, and what came of it before its turn.
//!
//! The content is handed out in parts, in order, as long as there is memory for all that is under way or
//! waits for the reader. What a broken request leaves is handed out again before anything new is, in
//! smaller parts: the reader waits for it, and whoever is free next takes a share of it. What the reader
//! will wait for because a slow connection was asked for it is asked for again, and the bytes that come first
//! count.
//!
//! It neither asks nor waits, and knows nothing of requests but how often a part has failed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};

use crate::http::error::HttpError;
use crate::http::retry::Attempts;

/// Parts are not smaller: each costs a round trip.
pub(super) const LEAST_PART: u64 = 256 << 10;

/// A part of the content, to be asked for.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: u64,
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) attempts: Attempts,
}

/// What the reader can have.
#[derive(Debug)]
pub(super) enum Next {
    Bytes(Bytes),
    /// Not yet.
    Nothing,
    /// This part can't be had.
    Failed(HttpError),
    End,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// The bytes of a new part.
    pub(super) most: u64,
    /// The connection has brought what it was asked for last.
    pub(super) warm: bool,
    pub(super) now: Instant,
}

/// A part is made to take a second.
const LATE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Slot {
    name: u64,
    start: u64,
    len: u64,
    /// Of `len`.
    came: u64,
    /// What came and was not passed on.
    bytes: VecDeque<Bytes>,
    state: State,
    /// How many were asked, and who was first.
    asked: u32,
    first: Option<Asker>,
}

#[derive(Debug)]
enum State {
    /// For somebody to ask for.
    Waits(Attempts),
    Asked,
    Failed(HttpError),
}

impl Slot {
    /// The part, if it waits for somebody to ask for it.
    fn ask(&mut self, asker: Asker) -> Option<Part> {
        let State::Waits(attempts) = &self.state else {
            return None;
        };
        let attempts = attempts.clone();
        self.state = State::Asked;
        self.first = Some(asker);
        Some(self.part(attempts))
    }

    /// What is still to come of the part, if whoever was asked for it is slow.
    fn ask_twice(&mut self, asker: Asker, attempts: &Attempts) -> Option<Part> {
        let first = self.first?;
        let slow = !first.warm || asker.now.duration_since(first.now) > LATE;
        let alone = matches!(self.state, State::Asked) && self.asked == 1;
        (alone && slow && self.came < self.len).then(|| self.part(attempts.clone()))
    }

    fn part(&mut self, attempts: Attempts) -> Part {
        self.asked += 1;
        Part {
            name: self.name,
            start: self.start + self.came,
            len: self.len - self.came,
            attempts,
        }
    }
}

/// Parts in the order of the content.
#[derive(Debug)]
pub(super) struct Queue {
    slots: VecDeque<Slot>,
    /// What was not handed out yet.
    next: u64,
    end: u64,
    /// Of all parts that were not passed on, including what is still to come of them.
    held: u64,
    memory: u64,
    /// Connections that have brought what they were asked for last.
    warm: usize,
    names: u64,
    attempts: Attempts,
}

impl Queue {
    /// All from `next` to `end`.
    pub(super) fn new(next: u64, end: u64, memory: u64, attempts: Attempts) -> Self {
        Self {
            slots: VecDeque::new(),
            next,
            end,
            held: 0,
            memory,
            warm: 0,
            names: 0,
            attempts,
        }
    }

    /// All that is under way fits into so much from now on. Whether that is news.
    pub(super) fn set_memory(&mut self, memory: u64) -> bool {
        std::mem::replace(&mut self.memory, memory) != memory
    }

    /// What comes before all parts there are, from `start`, is to be asked for as well.
    pub(super) fn add_front(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        self.held += end - start;
        let slot = self.slot(start, end - start);
        self.slots.push_front(slot);
    }

    fn slot(&mut self, start: u64, len: u64) -> Slot {
        self.names += 1;
        Slot {
            name: self.names,
            start,
            len,
            came: 0,
            bytes: VecDeque::new(),
            state: State::Waits(self.attempts.clone()),
            asked: 0,
            first: None,
        }
    }

    /// One connection more is `warm`, or one less.
    pub(super) fn set_warm(&mut self, warm: bool) {
        self.warm = if warm { self.warm + 1 } else { self.warm - 1 };
    }

    /// A part to ask for, if there is one and memory for it; of `most` bytes if it is a new one.
    ///
    /// What a broken request left is rather for a connection that is warm: the reader will soon wait for
    /// it, and the first bytes of a new connection take many round trips.
    pub(super) fn take(&mut self, asker: Asker) -> Option<Part> {
        if !asker.warm && self.warm > 0 && self.hand_out(asker.most).is_some() {
            return self.slots.back_mut().and_then(|slot| slot.ask(asker));
        }
        let waits = |slot: &Slot| matches!(slot.state, State::Waits(_));
        let waiting = self.slots.iter().any(waits);
        if !waiting
            && asker.warm
            && let Some(part) = self.late(asker)
        {
            return Some(part);
        }
        if waiting || self.hand_out(asker.most).is_some() {
            return self.slots.iter_mut().find_map(|slot| slot.ask(asker));
        }
        if !asker.warm {
            return None;
        }
        self.twice(asker, u64::MAX)
    }

    /// What the reader will soon wait for, and a slow connection was asked for: to ask twice costs less than
    /// that wait.
    fn late(&mut self, asker: Asker) -> Option<Part> {
        let soon = self.slots.front()?.start + self.memory / 2;
        self.twice(asker, soon)
    }

    /// The first part that starts before `before` and that somebody slow was asked for.
    fn twice(&mut self, asker: Asker, before: u64) -> Option<Part> {
        let attempts = &self.attempts;
        let mut near = self.slots.iter_mut().take_while(|slot| slot.start < before);
        near.find_map(|slot| slot.ask_twice(asker, attempts))
    }

    fn hand_out(&mut self, most: u64) -> Option<()> {
        let len = most.max(LEAST_PART).min(self.end - self.next);
        let room = self.slots.is_empty() || self.held + len <= self.memory;
        if len == 0 || !room {
            return None;
        }
        let slot = self.slot(self.next, len);
        self.slots.push_back(slot);
        self.next += len;
        self.held += len;
        Some(())
    }

    fn index(&self, name: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.name == name)
    }

    /// `bytes` from `start` on came, of part `name`. Whether the reader waits for just these.
    pub(super) fn put(&mut self, name: u64, start: u64, mut bytes: Bytes) -> bool {
        let Some(index) = self.index(name) else {
            return false;
        };
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        // Somebody else may have brought some of it.
        let known = (slot.start + slot.came).saturating_sub(start);
        let room = slot.len - slot.came;
        bytes.advance(usize::try_from(known).map_or(bytes.len(), |n| n.min(bytes.len())));
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return false;
        }
        slot.came += bytes.len() as u64;
        slot.bytes.push_back(bytes);
        index == 0
    }

    /// The request for `name` is over. What it did not bring is to be asked for in up to `shares` parts.
    pub(super) fn broke(&mut self, name: u64, attempts: &Attempts, shares: usize) {
        let Some(index) = self.index(name) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.asked = slot.asked.saturating_sub(1);
        if slot.asked > 0 {
            return;
        }
        let (start, end) = (slot.start + slot.came, slot.start + slot.len);
        slot.len = slot.came;
        let share = (end - start).div_ceil(shares.max(1) as u64).max(LEAST_PART);
        let (mut at, mut after) = (start, index + 1);
        while at < end {
            let mut rest = self.slot(at, share.min(end - at));
            rest.state = State::Waits(attempts.clone());
            at += rest.len;
            self.slots.insert(after, rest);
            after += 1;
        }
        self.drop_passed();
    }

    /// Parts of which all was passed on.
    fn drop_passed(&mut self) {
        let passed = |slot: &Slot| slot.bytes.is_empty() && slot.came >= slot.len;
        while self.slots.front().is_some_and(passed) {
            self.slots.pop_front();
        }
    }

    /// Part `name` can't be had. What comes before it can.
    pub(super) fn fail(&mut self, name: u64, error: HttpError) {
        if let Some(index) = self.index(name)
            && let Some(slot) = self.slots.get_mut(index)
        {
            slot.asked = slot.asked.saturating_sub(1);
            if slot.asked == 0 {
                slot.state = State::Failed(error);
            }
        }
    }

    /// What is next in order.
    pub(super) fn next(&mut self) -> Next {
        self.drop_passed();
        if let Some(first) = self.slots.front_mut() {
            if let Some(bytes) = first.bytes.pop_front() {
                self.held -= bytes.len() as u64;
                return Next::Bytes(bytes);
            }
            return match std::mem::replace(&mut first.state, State::Asked) {
                State::Failed(error) => Next::Failed(error),
                state => {
                    first.state = state;
                    Next::Nothing
                }
            };
        }
        if self.next < self.end {
            return Next::Nothing;
        }
        Next::End
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::retry::Policy;

    const KIB: u64 = 1 << 10;

    fn attempts() -> Attempts {
        let policy = Policy {
            retries: 3,
            first_pause: Duration::ZERO,
        };
        Attempts::new(policy, None)
    }

    fn queue(end: u64, memory: u64) -> Queue {
        Queue::new(0, end * KIB, memory * KIB, attempts())
    }

    fn asker(most: u64, warm: bool) -> Asker {
        Asker {
            most: most * KIB,
            warm,
            now: Instant::now(),
        }
    }

    /// Starts and lengths of all that can be taken now, in KiB.
    fn taken(queue: &mut Queue, part: u64) -> Vec<(u64, u64)> {
        let parts = std::iter::from_fn(|| queue.take(asker(part, true)));
        parts
            .map(|part| (part.start / KIB, part.len / KIB))
            .collect()
    }

    fn zeros(kib: u64) -> Bytes {
        Bytes::from(vec![0; usize::try_from(kib * KIB).unwrap()])
    }

    #[test]
    fn no_more_is_handed_out_than_there_is_memory_for() {
        let mut queue = queue(2000, 1100);
        assert_eq!(taken(&mut queue, 500), [(0, 500), (500, 500)]);
        // What has come still needs its room until it is passed on.
        assert!(queue.put(1, 0, zeros(500)));
        assert_eq!(taken(&mut queue, 500), []);
        assert!(matches!(queue.next(), Next::Bytes(_)));
        assert_eq!(taken(&mut queue, 500), [(1000, 500)]);
        assert!(matches!(queue.next(), Next::Nothing));
    }

    #[test]
    fn one_part_is_handed_out_however_little_memory_there_is() {
        let mut queue = queue(1000, 1);
        assert_eq!(taken(&mut queue, 600), [(0, 600)]);
        queue.put(1, 0, zeros(600));
        assert!(matches!(queue.next(), Next::Bytes(_)));
        assert!(matches!(queue.next(), Next::Nothing));
        assert_eq!(taken(&mut queue, 600), [(600, 400)]);
        queue.put(2, 600 * KIB, zeros(400));
        assert!(matches!(queue.next(), Next::Bytes(_)));
        assert!(matches!(queue.next(), Next::End));
    }

    #[test]
    fn what_a_broken_request_leaves_comes_before_anything_new_and_in_shares() {
        let mut queue = queue(9000, 100_000);
        let first = queue.take(asker(3000, true)).unwrap();
        assert!(queue.put(first.name, 0, zeros(1000)));
        queue.broke(first.name, &first.attempts, 4);
        let expected = [
            (1000, 500),
            (1500, 500),
            (2000, 500),
            (2500, 500),
            (3000, 3000),
            (6000, 3000),
        ];
        assert_eq!(taken(&mut queue, 3000), expected);
        // The shares come in any order, and are passed on in theirs.
        assert!(matches!(queue.next(), Next::Bytes(_)));
        assert!(!queue.put(4, 1500 * KIB, zeros(500)));
        assert!(matches!(queue.next(), Next::Nothing));
        assert!(queue.put(2, 1000 * KIB, zeros(500)));
        assert!(matches!(queue.next(), Next::Bytes(_)));
        assert!(matches!(queue.next(), Next::Nothing));
    }

    #[test]
    fn the_reader_hears_of_the_first_share_of_what_it_waits_for() {
        for came in [0, 100] {
            let mut queue = queue(1000, 5000);
            let first = queue.take(asker(1000, true)).unwrap();
            if came > 0 {
                queue.put(first.name, 0, zeros(came));
                assert!(matches!(queue.next(), Next::Bytes(_)));
            }
            assert!(matches!(queue.next(), Next::Nothing));
            queue.broke(first.name, &first.attempts, 2);
            let share = queue.take(asker(1000, true)).unwrap();
            assert!(queue.put(share.name, share.start, zeros(1)));
        }
    }

    #[test]
    fn a_new_connection_leaves_what_others_left_to_those_that_are_warm() {
        let mut queue = queue(3000, 5000);
        let first = queue.take(asker(1000, false)).unwrap();
        queue.broke(first.name, &first.attempts, 1);
        // Somebody has to.
        let again = queue.take(asker(1000, false)).unwrap();
        assert_eq!(again.start, 0);
        queue.broke(again.name, &again.attempts, 1);
        queue.set_warm(true);
        assert_eq!(queue.take(asker(1000, false)).unwrap().start, 1000 * KIB);
        let starts = [0, 1, 2].map(|_| queue.take(asker(1000, true)).unwrap().start);
        // And what a new connection was asked for is asked for again.
        assert_eq!(starts, [0, 1000 * KIB, 2000 * KIB]);
    }

    #[test]
    fn what_a_slow_connection_is_at_is_asked_for_again() {
        let mut queue = queue(2000, 5000);
        let slow = queue.take(asker(1000, false)).unwrap();
        queue.put(slow.name, 0, zeros(300));
        let again = queue.take(asker(1000, true)).unwrap();
        assert_eq!((again.start, again.len), (300 * KIB, 700 * KIB));
        let quick = queue.take(asker(1000, true)).unwrap();
        // Once is enough, and a connection that is not slow is left alone.
        assert!(queue.take(asker(1000, true)).is_none());
        let late = Asker {
            now: Instant::now() + LATE * 2,
            ..asker(1000, true)
        };
        assert_eq!(queue.take(late).unwrap().start, quick.start);

        // The bytes that come first count, and each of them once.
        assert!(queue.put(again.name, 300 * KIB, zeros(500)));
        assert!(!queue.put(slow.name, 300 * KIB, zeros(400)));
        // One of the two breaks: the other goes on.
        queue.broke(again.name, &again.attempts, 4);
        assert!(
            queue
                .take(asker(1000, true))
                .is_some_and(|p| p.start == 800 * KIB)
        );
        assert!(queue.put(slow.name, 700 * KIB, zeros(300)));
        let bytes = std::iter::from_fn(|| match queue.next() {
            Next::Bytes(bytes) => Some(bytes.len() as u64),
            _ => None,
        });
        assert_eq!(bytes.sum::<u64>(), 1000 * KIB);
        assert!(!queue.put(slow.name, 0, zeros(10)));
    }

    #[test]
    fn shares_are_not_smaller_than_parts_may_be() {
        let mut queue = queue(600, 1000);
        let first = queue.take(asker(600, true)).unwrap();
        queue.broke(first.name, &first.attempts, 16);
        assert_eq!(taken(&mut queue, 600), [(0, 256), (256, 256), (512, 88)]);
    }

    #[test]
    fn what_comes_before_a_failure_can_be_had() {
        let mut queue = queue(2000, 5000);
        taken(&mut queue, 1000);
        let error = HttpError::Overlong { expected: 7 };
        queue.fail(2, error);
        queue.put(1, 0, zeros(1000));
        assert!(matches!(queue.next(), Next::Bytes(_)));
        let failed = queue.next();
        assert!(matches!(failed, Next::Failed(HttpError::Overlong { .. })));
    }

    #[test]
    fn what_is_added_in_front_comes_first() {
        let mut queue = Queue::new(300 * KIB, 600 * KIB, 10_000 * KIB, attempts());
        assert_eq!(taken(&mut queue, 300), [(300, 300)]);
        queue.add_front(100 * KIB, 300 * KIB);
        queue.add_front(5, 5);
        assert_eq!(taken(&mut queue, 300), [(100, 200)]);
        queue.put(1, 300 * KIB, zeros(300));
        assert!(matches!(queue.next(), Next::Nothing));
        queue.put(2, 100 * KIB, zeros(200));
        assert!(matches!(queue.next(), Next::Bytes(b) if b.len() == 200 << 10));
    }
}
