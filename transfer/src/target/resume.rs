//! A target that was begun before, and what its journal is worth.
//!
//! Of a **file** the journal tells of one inode. What is not done is emptied before anything is read:
//! zeros are not written to files, and a killed run may have left other bytes there. A **device** has no
//! such identity. It carries a mark, at the end of its first MiB, which is otherwise zeros as long as
//! the disk is not whole; whatever writes a disk or a filesystem to it changes that.

use std::collections::hash_map::RandomState;
use std::fs::{File, Metadata};
use std::hash::BuildHasher;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::UNIX_EPOCH;

use rustix::fs::{FallocateFlags, Mode, OFlags};

use super::{HEAD, Kind, Preallocate, Target};
use crate::checksum::hex;
use crate::journal::{Facts, Found, Kept, Parsed, Place, Plan, Recorder, discard, look};
use crate::written::Written;
use crate::{Error, Result, sys};

/// What a mark begins with.
const MARK: [u8; 16] = *b"longshore import";
/// Room for it at the end of the head, and for the rest of a page of zeros.
const MARK_PAGE: usize = 4096;

/// What a device is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark([u8; 16]);

impl Mark {
    /// One that no other device has.
    fn new() -> Self {
        let mut id = [0; 16];
        // Each is seeded by the system.
        for half in id.chunks_mut(8) {
            half.copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes());
        }
        Self(id)
    }

    /// Puts it into a head of zeros.
    pub(super) fn put(self, head: &mut [u8]) {
        if let Some(from) = head.len().checked_sub(MARK_PAGE) {
            head[from..from + 16].copy_from_slice(&MARK);
            head[from + 16..from + 32].copy_from_slice(&self.0);
        }
    }

    /// The mark of a head that has nothing else in it.
    fn of(head: &[u8]) -> Option<Self> {
        let from = head.len().checked_sub(MARK_PAGE)?;
        let mut id = [0; 16];
        id.copy_from_slice(head.get(from + 16..from + 32)?);
        let mut expected = vec![0; head.len()];
        Self(id).put(&mut expected);
        (head == expected).then_some(Self(id))
    }

    fn name(self) -> String {
        hex(&self.0)
    }
}

impl Target {
    /// Of a file that is open and locked. `left_behind`: it was there.
    pub(super) fn find_journal(
        &mut self,
        plan: Option<&Plan>,
        left_behind: bool,
    ) -> Result<Option<Kept>> {
        let Some(place) = Place::beside(&self.spec.path) else {
            return Ok(None);
        };
        let Some(plan) = plan else {
            if left_behind {
                no_journal(&place)?;
            }
            return Ok(None);
        };
        let Kind::File { partial, .. } = &self.kind else {
            return Ok(None);
        };
        let partial = partial.clone();
        let meta = sys::again(|| self.file.metadata()).map_err(|e| self.failed("look at", e))?;
        let facts = plan.facts(file_facts(&meta, plan.knows_target()));
        let found = self.believe(look(&place, &facts), |parsed| {
            (parsed.contents.done.end() > meta.len())
                .then(|| "the partial file is shorter than it says".to_owned())
        });
        let Some(found) = found else {
            no_journal(&place)?;
            return self.kept(place, facts, None, Some(partial)).map(Some);
        };
        let done = found.contents.believed();
        self.empty_gaps(&done)?;
        self.resume(done);
        self.kept(place, facts, Some(found), Some(partial))
            .map(Some)
    }

    /// Of a device that is open and locked.
    pub(super) fn find_journal_of_device(&mut self, plan: Option<&Plan>) -> Result<Option<Kept>> {
        let Kind::Device { size, .. } = self.kind else {
            return Ok(None);
        };
        let Some(plan) = plan else { return Ok(None) };
        let Some(place) = plan.of_device(&self.spec.path) else {
            tracing::info!("no journal is kept of a device: no directory for it was given");
            return Ok(None);
        };
        let len = usize::try_from(HEAD.min(size)).unwrap_or(0);
        if len < 2 * MARK_PAGE {
            return Ok(None);
        }
        let mut head = vec![0; len];
        self.file
            .read_exact_at(&mut head, 0)
            .map_err(|e| self.failed("read", e))?;
        let facts = |mark: Option<Mark>| {
            let mark = mark.map_or_else(|| "no mark".to_owned(), |m| format!("mark {}", m.name()));
            plan.facts(format!("a block device of {size} bytes with {mark}"))
        };
        let there = facts(Mark::of(&head));
        let found = self.believe(look(&place, &there), |parsed| {
            let contents = &parsed.contents;
            let wrong = contents.done.end() > size || ![0, len].contains(&contents.head.len());
            wrong.then(|| "it is of another device".to_owned())
        });
        let Some(found) = found else {
            // What it says is not believed of another mark, where it can't be removed.
            if let Err(error) = discard(&place) {
                let path = place.path().display();
                tracing::warn!(%path, %error, "the journal of an earlier import can't be removed");
            }
            let mark = Mark::new();
            self.mark = Some(mark);
            return self.kept(place, facts(Some(mark)), None, None).map(Some);
        };
        head.fill(0);
        if !found.contents.head.is_empty() {
            head.copy_from_slice(&found.contents.head);
        }
        if let Kind::Device { head: place, .. } = &mut self.kind {
            *place = head;
        }
        self.resume(found.contents.believed());
        self.kept(place, there, Some(found), None).map(Some)
    }

    /// What was found, if it is of any use; otherwise this says why not.
    fn believe(
        &self,
        found: Found,
        wrong: impl FnOnce(&Parsed) -> Option<String>,
    ) -> Option<Parsed> {
        let why = match found {
            Found::Nothing => return None,
            Found::Useless(why) => why,
            Found::Fits(parsed) => match wrong(&parsed) {
                Some(why) => why,
                None => return Some(*parsed),
            },
        };
        tracing::warn!(
            target = %self.spec.path.display(),
            "the journal of an earlier import does not fit, and this one starts over: {why}"
        );
        None
    }

    fn resume(&mut self, done: Written) {
        self.begun.resumed = true;
        self.end = done.end();
        if self.written.is_some() {
            self.written = Some(done);
        }
    }

    fn kept(
        &self,
        place: Place,
        facts: Facts,
        found: Option<Parsed>,
        partial: Option<std::path::PathBuf>,
    ) -> Result<Kept> {
        let lock = sys::again(|| self.file.try_clone()).map_err(|e| self.failed("open", e))?;
        let sync = reopen(&self.file).map_err(|e| self.failed("open", e))?;
        Ok(Kept {
            place,
            facts,
            found,
            sync,
            lock,
            partial,
            step: self.spec.journal.as_ref().and_then(|journal| journal.step),
        })
    }

    /// Makes everything else a hole, or sees to it that it is zeroed.
    fn empty_gaps(&mut self, done: &Written) -> Result<()> {
        let end = done.end();
        self.file
            .set_len(end)
            .map_err(|e| self.failed("empty a part of", e))?;
        self.len = end;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for Range { start, end } in done.gaps(0..end) {
            let punched =
                sys::again(|| rustix::fs::fallocate(&self.file, punch, start, end - start));
            match punched {
                Ok(()) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    self.written = Some(done.clone());
                    return Ok(());
                }
                Err(e) => return Err(self.failed("empty a part of", e)),
            }
        }
        if self.spec.preallocate == Preallocate::Full {
            self.written = Some(done.clone());
        }
        Ok(())
    }

    /// Has the journal written on. Zeros of what has settled are on their way to storage too from here.
    pub(crate) fn checkpoint(&mut self, recorder: &Recorder) -> Result<()> {
        let Some((point, ranges)) = recorder.collect() else {
            return Ok(());
        };
        if self.written.is_some() {
            for range in ranges.iter() {
                self.zero_gaps(range)?;
            }
        }
        // Zeros at its end do not make a file longer.
        let end = ranges.end();
        if matches!(self.kind, Kind::File { .. }) && end > self.len.max(self.end) {
            self.file
                .set_len(end)
                .map_err(|e| self.failed("set the size of", e))?;
            self.len = end;
        }
        let head = match &self.kind {
            Kind::Device { head, .. } if self.begun.head_changed => Some(head.clone()),
            _ => None,
        };
        self.begun.head_changed = false;
        recorder.step(point, &ranges, head);
        Ok(())
    }
}

/// Whatever journal there was is of nothing that is there any more.
fn no_journal(place: &Place) -> Result<()> {
    discard(place)
        .map_err(|e| Error::target("remove the journal of an earlier import,", place.path(), e))
}

/// The same file, opened anew: it hears of errors of write-out by itself.
fn reopen(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(sys::again(|| rustix::fs::open(&path, flags, Mode::empty()))?.into())
}

/// What tells a file from all others, one of the same name included. The number of its filesystem's device
/// is another one wherever that is mounted next: it does not count where the volume has an id.
fn file_facts(meta: &Metadata, volume_known: bool) -> String {
    let (inode, device) = (meta.ino(), meta.dev());
    let made = meta.created().ok();
    let made = made.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    match made.map(|at| format!("{}.{:09}", at.as_secs(), at.subsec_nanos())) {
        Some(made) if volume_known => format!("inode {inode}, made at {made}"),
        Some(made) => format!("inode {inode} of device {device}, made at {made}"),
        None => format!("inode {inode} of device {device}, made at an unknown time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_mark_only_while_all_else_is_zeros() {
        let mark = Mark::new();
        assert_ne!(mark, Mark::new());
        let mut head = vec![0; 1 << 20];
        assert_eq!(Mark::of(&head), None);
        mark.put(&mut head);
        assert_eq!(Mark::of(&head), Some(mark));
        for at in [0, 512, 1080, (1 << 20) - 4097, (1 << 20) - 1] {
            head[at] = 1;
            assert_eq!(Mark::of(&head), None, "a byte at {at}");
            head[at] = 0;
        }
        assert_eq!(Mark::of(&[]), None);
    }
}
