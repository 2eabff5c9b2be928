//! An NBD server's replies, to requests that are always the same.

use std::io::Cursor;

use self::wire::{Answer, Replies, Terms};

#[expect(
    dead_code,
    reason = "taken from the importer as it is; requests are not fuzzed"
)]
#[path = "../../importer/src/nbd/wire.rs"]
mod wire;

/// Bytes of a read.
const READ: u32 = 4096;
/// Room in its buffer.
const ROOM: usize = 5000;
/// Where reads begin.
const AT: u64 = 1 << 20;

/// `data` as what a server says: both where chunks were agreed upon and where not.
pub fn nbd_replies(data: &[u8]) {
    for structured in [true, false] {
        let mut replies = Replies::new(Terms {
            structured,
            context: structured.then_some(9),
        });
        for handle in 1..=4 {
            let at = AT + u64::from(READ) * handle;
            replies.expect_read(handle, at, READ, vec![0xee; ROOM]);
        }
        for handle in 5..=6 {
            replies.expect_status(handle);
        }
        let mut from = Cursor::new(data);
        let mut open = 6;
        let mut before = 0;
        while let Ok(finished) = replies.receive(&mut from) {
            // Every reply takes bytes: nothing goes round for ever.
            assert!(from.position() > before);
            before = from.position();
            let Some(finished) = finished else { continue };
            open -= 1;
            assert_eq!(replies.pending(), open);
            if let Some(buf) = finished.buf {
                assert!(finished.handle <= 4 && buf.len() == ROOM);
                let beyond = buf.iter().skip(READ as usize);
                assert!(beyond.copied().all(|byte| byte == 0xee), "bytes beyond");
            }
            if let Ok(Answer::Status(extents)) = finished.outcome {
                assert!(finished.handle > 4 && extents.len() <= 16 << 10);
                assert!(extents.iter().all(|extent| extent.len > 0));
            }
        }
        assert!(replies.abandon().len() <= open);
    }
}
