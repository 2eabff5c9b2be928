//! Lines of bounded length from a stream.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Broken;

/// Longest line accepted. The longest answer QEMU 10 gives, to `query-qmp-schema`, is a quarter MiB.
pub const MAX_LINE: usize = 4 << 20;

/// What one read asks for.
const CHUNK: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no newline.
    searched: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::with_capacity(CHUNK),
            searched: 0,
        }
    }

    /// The next line without its newline. Cancel-safe: bytes read so far stay in the buffer.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(Broken::LineTooLong);
            }
            self.buffer.reserve(CHUNK);
            let read = self.reader.read_buf(&mut self.buffer).await;
            if read.map_err(|source| Broken::Read { source })? == 0 {
                return Err(Broken::Closed);
            }
        }
    }
}
