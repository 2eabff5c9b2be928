//! Several files, one behind the other, as one address space.

use std::io;
use std::sync::Arc;

use crate::num::{to_u64, to_usize};
use crate::{Error, FileRange, ReadAt, Result};

/// A file and where it starts.
#[derive(Debug)]
struct Member {
    start: u64,
    name: String,
    file: Arc<dyn ReadAt>,
}

/// Files in a row. Nothing lies between two, so a read may begin in one and end in the next; who wants
/// no byte of the next one has to stop at the end of a file.
#[derive(Debug, Default)]
pub(super) struct Joined {
    members: Vec<Member>,
    len: u64,
}

impl Joined {
    /// Puts `file` behind the others; returns where it starts.
    pub(super) fn push(&mut self, name: &str, file: Arc<dyn ReadAt>) -> Result<u64> {
        let start = self.len;
        self.len = start
            .checked_add(file.len())
            .ok_or_else(|| Error::malformed("the files of this VMDK are too long together"))?;
        self.members.push(Member {
            start,
            name: name.to_owned(),
            file,
        });
        Ok(start)
    }

    /// The files as something to read; a single one as it is.
    pub(super) fn into_data(mut self) -> Arc<dyn ReadAt> {
        match self.members.pop() {
            Some(only) if self.members.is_empty() => only.file,
            Some(last) => {
                self.members.push(last);
                Arc::new(self)
            }
            None => Arc::new(Vec::new()),
        }
    }
}

impl ReadAt for Joined {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut rest = buf;
        let mut index = self.members.partition_point(|m| m.start <= offset);
        index = index.saturating_sub(1);
        while !rest.is_empty() {
            let Some(member) = self.members.get(index) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let inside = at.saturating_sub(member.start);
            let there = to_usize(member.file.len().saturating_sub(inside)).min(rest.len());
            let (now, later) = rest.split_at_mut(there);
            if !now.is_empty() {
                member
                    .file
                    .read_exact_at(now, inside)
                    .map_err(|e| io::Error::new(e.kind(), format!("{:?}: {e}", member.name)))?;
            }
            at = at.saturating_add(to_u64(there));
            rest = later;
            index = index.saturating_add(1);
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn in_file(&self, at: u64) -> Option<FileRange<'_>> {
        let index = self.members.partition_point(|m| m.start <= at);
        let member = self.members.get(index.checked_sub(1)?)?;
        let inside = at.checked_sub(member.start)?;
        let there = member.file.len().checked_sub(inside)?;
        Some(member.file.in_file(inside)?.up_to(there))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has `0` bytes of a file, from its start on.
    #[derive(Debug)]
    struct InFile(u64, std::fs::File);

    impl ReadAt for InFile {
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> u64 {
            self.0
        }
        fn in_file(&self, at: u64) -> Option<FileRange<'_>> {
            use std::os::fd::AsFd;
            let (file, len) = (self.1.as_fd(), self.0.checked_sub(at)?);
            Some(FileRange { file, at, len })
        }
    }

    #[test]
    fn a_byte_is_in_the_file_that_it_is_read_from_up_to_the_end_of_that() {
        use std::os::fd::AsRawFd;
        let mut joined = Joined::default();
        let mut fds = Vec::new();
        for len in [1000, 0, 500] {
            let file = std::fs::File::open("/dev/null").unwrap();
            fds.push(file.as_raw_fd());
            joined.push("x", Arc::new(InFile(len, file))).unwrap();
        }
        let data = joined.into_data();
        for (at, fd, inside, len) in [(0, 0, 0, 1000), (999, 0, 999, 1), (1000, 2, 0, 500)] {
            let found = data.in_file(at).unwrap();
            assert_eq!(found.file.as_raw_fd(), fds[fd]);
            assert_eq!((found.at, found.len), (inside, len));
        }
        assert_eq!(data.in_file(1500).map(|found| found.len), Some(0));
        assert!(data.in_file(1501).is_none());
        assert!(Vec::<u8>::new().in_file(0).is_none());
    }

    #[test]
    fn reads_begin_and_end_in_any_file_and_not_behind_the_last() {
        let mut joined = Joined::default();
        let mut all = Vec::new();
        for (i, len) in [3, 0, 5, 1, 0, 7].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..len).map(|n| (i * 16 + n) as u8).collect();
            assert_eq!(
                joined.push("x", Arc::new(bytes.clone())).unwrap(),
                to_u64(all.len())
            );
            all.extend(bytes);
        }
        let data = joined.into_data();
        assert_eq!(data.len(), 16);
        for start in 0..=all.len() {
            for end in start..=all.len() {
                let mut buf = vec![0; end - start];
                data.read_exact_at(&mut buf, start as u64).unwrap();
                assert_eq!(buf, all[start..end]);
            }
            let e = data.read_exact_at(&mut vec![0; 17 - start], start as u64);
            assert_eq!(e.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_file_that_fails_is_named() {
        #[derive(Debug)]
        struct Broken;
        impl ReadAt for Broken {
            fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
                Err(io::Error::other("worn out"))
            }
            fn len(&self) -> u64 {
                9
            }
        }
        let mut joined = Joined::default();
        joined.push("a", Arc::new(vec![1])).unwrap();
        joined.push("disk-s002.vmdk", Arc::new(Broken)).unwrap();
        let e = joined.read_exact_at(&mut [0; 4], 0).unwrap_err();
        assert!(e.to_string().contains("disk-s002.vmdk"), "{e}");
    }
}
