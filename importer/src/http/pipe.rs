//! Where the network meets the disk: async on one side, a blocking reader on the other, and at most
//! [`ROOM`] bytes between them.
//!
//! Bytes are gathered in buffers as large as the chunks of the engine, which takes a full one and gives an
//! empty one for it. They are copied once, out of the memory that the client reads into, right after they
//! came: that memory is then read into again. Kept, it would be new with each read, and clearing new
//! memory took as long as everything else (measured: 150,000 page faults for 512 MiB, a third of all
//! processor time).

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_transfer::{CHUNK, Exchange};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::error::HttpError;
use super::net::{Net, TICK, lost};

/// Bytes under way.
pub(crate) const ROOM: usize = 4 << 20;

/// The client reads so much at once, at the most.
const MOST_AT_ONCE: usize = 408 << 10;

enum Message {
    Buffer(Filled),
    End,
    Failed(HttpError),
}

/// A buffer, and what is in it that was not taken yet.
struct Filled {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

/// Buffers that nobody uses, and how many more there may be in use.
struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    room: Semaphore,
}

impl Buffers {
    /// An empty buffer, once there is one. `None` if nobody waits for it to be filled any more.
    async fn get(&self) -> Option<Vec<u8>> {
        self.room.acquire().await.ok()?.forget();
        let free = self.lock().pop();
        Some(free.unwrap_or_else(|| vec![0; CHUNK]))
    }

    fn put(&self, buffer: Vec<u8>) {
        self.lock().push(buffer);
        self.room.add_permits(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The async end.
pub(crate) struct Feed {
    messages: Sender<Message>,
    buffers: Arc<Buffers>,
    filling: Option<Filled>,
    /// Empty ones.
    spare: Vec<Vec<u8>>,
    /// Bytes that were given to it. A buffer ends where a whole one would, whatever was sent early: so the
    /// reader's chunks and these come to lie alike again.
    at: u64,
}

/// The reader is gone.
#[derive(Debug)]
pub(crate) struct Unwanted;

impl Feed {
    /// Waits until there is room for whatever the client may bring at once. Who waits afterwards keeps what
    /// was brought, and the client has to take new memory.
    pub(crate) async fn ready(&mut self) -> Result<(), Unwanted> {
        while self.spare.len() * CHUNK < MOST_AT_ONCE {
            self.spare.push(self.buffers.get().await.ok_or(Unwanted)?);
        }
        Ok(())
    }

    /// Takes `bytes`, and passes on what is full. Waits for room if there is none yet.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Unwanted> {
        while !bytes.is_empty() {
            let filling = match &mut self.filling {
                Some(filling) => filling,
                none => none.insert(Filled {
                    bytes: match self.spare.pop() {
                        Some(spare) => spare,
                        None => self.buffers.get().await.ok_or(Unwanted)?,
                    },
                    from: 0,
                    to: 0,
                }),
            };
            let until_whole = CHUNK as u64 - self.at % CHUNK as u64;
            let n = bytes
                .len()
                .min(usize::try_from(until_whole).unwrap_or(CHUNK));
            let n = n.min(filling.bytes.len() - filling.to);
            let (now, later) = bytes.split_at(n);
            filling.bytes[filling.to..filling.to + n].copy_from_slice(now);
            filling.to += n;
            bytes = later;
            self.at += n as u64;
            if self.at.is_multiple_of(CHUNK as u64) {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// There are bytes that were not passed on.
    pub(crate) fn holds(&self) -> bool {
        self.filling.is_some()
    }

    /// Passes on what there is.
    pub(crate) fn flush(&mut self) -> Result<(), Unwanted> {
        let Some(filled) = self.filling.take() else {
            return Ok(());
        };
        self.messages
            .send(Message::Buffer(filled))
            .map_err(|_| Unwanted)
    }

    /// Says how it ended.
    pub(crate) fn end(mut self, outcome: Result<(), HttpError>) {
        let message = match outcome {
            Ok(()) => Message::End,
            Err(e) => Message::Failed(e),
        };
        // Without a reader nobody wants to know.
        if self.flush().is_ok() {
            let _ = self.messages.send(message);
        }
    }
}

/// The blocking end. While it waits it returns [`io::ErrorKind::Interrupted`] now and then, which all
/// of `std` takes as "call again", so that whoever reads can look whether it still wants to.
pub(crate) struct Reader {
    messages: Receiver<Message>,
    buffers: Arc<Buffers>,
    current: Option<Filled>,
    ended: bool,
    task: AbortHandle,
    net: Arc<Net>,
}

/// Starts the task that `feed` makes, with a reader at its other end.
pub(crate) fn pipe<F>(net: Arc<Net>, feed: impl FnOnce(Feed) -> F) -> Reader
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tx, rx) = mpsc::channel();
    let buffers = Arc::new(Buffers {
        free: Mutex::default(),
        room: Semaphore::new(ROOM / CHUNK),
    });
    let task = net.spawn(feed(Feed {
        messages: tx,
        buffers: Arc::clone(&buffers),
        filling: None,
        spare: Vec::new(),
        at: 0,
    }));
    Reader {
        messages: rx,
        buffers,
        current: None,
        ended: false,
        task,
        net,
    }
}

impl Reader {
    /// Waits until there is something in `current`; false at the end.
    fn wait(&mut self) -> io::Result<bool> {
        while self.current.is_none() {
            if self.ended {
                return Ok(false);
            }
            match self.messages.recv_timeout(TICK) {
                Ok(Message::Buffer(filled)) => self.current = Some(filled),
                Ok(Message::End) => self.ended = true,
                Ok(Message::Failed(e)) => return Err(io::Error::other(e)),
                Err(RecvTimeoutError::Timeout) if self.net.is_cancelled() => {
                    return Err(io::Error::other(HttpError::Cancelled));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                // Never an end: what was not said to be complete is not.
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other(lost())),
            }
        }
        Ok(true)
    }
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || !self.wait()? {
            return Ok(0);
        }
        let Some(mut current) = self.current.take() else {
            return Ok(0);
        };
        let n = buf.len().min(current.to - current.from);
        buf[..n].copy_from_slice(&current.bytes[current.from..current.from + n]);
        current.from += n;
        if current.from == current.to {
            self.buffers.put(current.bytes);
        } else {
            self.current = Some(current);
        }
        Ok(n)
    }
}

impl Exchange for Reader {
    fn exchange(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if !self.wait()? {
            return Ok(0);
        }
        match self.current.take() {
            Some(Filled {
                mut bytes,
                from: 0,
                to,
            }) if bytes.len() == buffer.len() => {
                std::mem::swap(&mut bytes, buffer);
                self.buffers.put(bytes);
                Ok(to)
            }
            current => {
                self.current = current;
                self.read(buffer)
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Closes the connection, and with it what the server still sends.
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use longshore_transfer::Cancel;

    use super::*;

    fn net() -> Arc<Net> {
        Arc::new(Net::start(Cancel::default()).unwrap())
    }

    #[test]
    fn bytes_come_out_in_order_and_end() {
        let mut reader = pipe(net(), |mut feed| async move {
            for i in 0..100u8 {
                feed.send(&vec![i; 70_000]).await.unwrap();
            }
            feed.end(Ok(()));
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        let expected: Vec<u8> = (0..100u8).flat_map(|i| vec![i; 70_000]).collect();
        assert!(all == expected);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_task_that_vanishes_is_an_error_and_no_end() {
        let mut reader = pipe(net(), |mut feed| async move {
            feed.send(b"abc").await.unwrap();
            feed.flush().unwrap();
        });
        let mut all = Vec::new();
        assert!(reader.read_to_end(&mut all).is_err());
        assert_eq!(all, b"abc");
        assert!(reader.read(&mut [0]).is_err());
    }

    #[test]
    fn an_error_comes_after_the_bytes_before_it() {
        let mut reader = pipe(net(), |mut feed| async move {
            feed.send(b"abc").await.unwrap();
            feed.end(Err(HttpError::Cancelled));
        });
        let mut all = Vec::new();
        let error = reader.read_to_end(&mut all).unwrap_err();
        assert_eq!(all, b"abc");
        let inner = error.get_ref().unwrap().downcast_ref::<HttpError>();
        assert!(matches!(inner, Some(HttpError::Cancelled)));
    }

    #[test]
    fn no_more_than_the_room_is_under_way() {
        // One buffer is with the reader that has not read it to its end.
        for piece in [1, CHUNK] {
            let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counter = Arc::clone(&sent);
            let (full_tx, full_rx) = mpsc::channel();
            let mut reader = pipe(net(), |mut feed| async move {
                let one = vec![7; piece];
                loop {
                    if feed.buffers.room.available_permits() == 0 {
                        let _ = full_tx.send(());
                    }
                    if feed.send(&one).await.is_err() || feed.flush().is_err() {
                        return;
                    }
                    counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
            full_rx.recv().unwrap();
            let most = ROOM / CHUNK;
            assert_eq!(sent.load(std::sync::atomic::Ordering::SeqCst), most);
            // Room comes back as bytes are taken.
            let mut buf = vec![0; 2 * most * piece];
            reader.read_exact(&mut buf).unwrap();
            assert!(buf.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn full_buffers_change_hands_again_after_one_that_was_not() {
        let mut reader = pipe(net(), |mut feed| async move {
            feed.send(&vec![1; 100_001]).await.unwrap();
            feed.flush().unwrap();
            feed.send(&vec![2; 4 * CHUNK - 100_001]).await.unwrap();
            feed.send(&[3; 5]).await.unwrap();
            feed.end(Ok(()));
        });
        let mut lengths = Vec::new();
        let mut all = Vec::new();
        loop {
            let mut buffer = vec![0; CHUNK];
            let before = buffer.as_ptr();
            let n = reader.exchange(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            assert!(buffer.as_ptr() != before, "copied");
            lengths.push(n);
            all.extend_from_slice(&buffer[..n]);
        }
        let whole = [100_001, CHUNK - 100_001, CHUNK, CHUNK, CHUNK, 5];
        assert_eq!(lengths, whole);
        let expected = [vec![1; 100_001], vec![2; 4 * CHUNK - 100_001], vec![3; 5]].concat();
        assert!(all == expected);
    }

    #[test]
    fn what_is_left_of_a_buffer_is_copied() {
        let mut reader = pipe(net(), |mut feed| async move {
            feed.send(&[1; 1000]).await.unwrap();
            feed.end(Ok(()));
        });
        reader.read_exact(&mut [0; 10]).unwrap();
        let mut buffer = vec![0; CHUNK];
        assert_eq!(reader.exchange(&mut buffer).unwrap(), 990);
        assert_eq!(reader.exchange(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_wait_ends_when_it_is_cancelled() {
        let cancel = Cancel::default();
        let net = Arc::new(Net::start(cancel.clone()).unwrap());
        let mut reader = pipe(Arc::clone(&net), |feed| async move {
            std::future::pending::<()>().await;
            feed.end(Ok(()));
        });
        let waiting = reader.read(&mut [0]).unwrap_err();
        assert_eq!(waiting.kind(), io::ErrorKind::Interrupted);
        cancel.cancel();
        let mut all = Vec::new();
        let error = reader.read_to_end(&mut all).unwrap_err();
        assert!(error.get_ref().unwrap().is::<HttpError>());
        let outcome = net.wait(std::future::pending::<Result<(), HttpError>>());
        assert!(matches!(outcome, Err(HttpError::Cancelled)));
    }
}
