//! One push: the input, the room for output, and how far both got. And a place where the few bytes of
//! a header gather when they arrive in pieces.

use super::Progress;

/// Input and output of one call.
pub(super) struct Io<'a> {
    input: &'a [u8],
    room: &'a mut [u8],
    done: Progress,
}

impl<'a> Io<'a> {
    pub(super) fn new(input: &'a [u8], room: &'a mut [u8]) -> Self {
        Self {
            input,
            room,
            done: Progress {
                consumed: 0,
                produced: 0,
            },
        }
    }

    /// Input that was not taken yet.
    pub(super) fn input(&self) -> &'a [u8] {
        self.input.get(self.done.consumed..).unwrap_or_default()
    }

    /// There is room for output.
    pub(super) fn has_room(&self) -> bool {
        self.done.produced < self.room.len()
    }

    /// The input that was not taken yet and the room that was not filled yet.
    pub(super) fn split(&mut self) -> (&'a [u8], &mut [u8]) {
        let room = self.room.get_mut(self.done.produced..).unwrap_or_default();
        (
            self.input.get(self.done.consumed..).unwrap_or_default(),
            room,
        )
    }

    /// Counts `n` bytes of input as taken.
    pub(super) fn consume(&mut self, n: usize) {
        self.done.consumed = self.done.consumed.saturating_add(n).min(self.input.len());
    }

    /// Counts `n` bytes of room as filled and returns them.
    pub(super) fn produce(&mut self, n: usize) -> &[u8] {
        let start = self.done.produced;
        self.done.produced = start.saturating_add(n).min(self.room.len());
        self.room.get(start..self.done.produced).unwrap_or_default()
    }

    pub(super) fn progress(&self) -> Progress {
        self.done
    }
}

/// Up to `N` bytes that came one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gather<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Gather<N> {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Takes input until `want` bytes are here (at most `N`); says whether they are.
    pub(super) fn fill(&mut self, io: &mut Io<'_>, want: usize) -> bool {
        let want = want.min(N);
        let input = io.input();
        let n = want.saturating_sub(self.len).min(input.len());
        let end = self.len.saturating_add(n);
        if let (Some(to), Some(from)) = (self.bytes.get_mut(self.len..end), input.get(..n)) {
            to.copy_from_slice(from);
            self.len = end;
            io.consume(n);
        }
        self.len >= want
    }

    /// What is here so far.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// All of the place, zeros where nothing came yet.
    pub(super) fn array(&self) -> [u8; N] {
        self.bytes
    }
}
