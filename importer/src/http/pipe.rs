//! Where the network meets the disk: async on one side, a blocking reader on the other, and at most
//! [`ROOM`] bytes between them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};

use bytes::{Buf, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::error::HttpError;
use super::net::{Net, TICK, lost};

/// Bytes under way.
pub(crate) const ROOM: u32 = 4 << 20;
/// What a message takes of it at least. A server that sends single bytes fills the room too, so that
/// the messages themselves are bounded.
const LEAST: u32 = 4 << 10;

enum Message {
    Bytes(Bytes, OwnedSemaphorePermit),
    End,
    Failed(HttpError),
}

/// The async end.
pub(crate) struct Feed {
    messages: Sender<Message>,
    room: Arc<Semaphore>,
}

/// The reader is gone.
#[derive(Debug)]
pub(crate) struct Unwanted;

impl Feed {
    /// Waits for room, then passes `bytes` on. Cancel-safe: a cancelled call has passed on nothing.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Unwanted> {
        let weight = u32::try_from(bytes.len())
            .unwrap_or(ROOM)
            .clamp(LEAST, ROOM);
        let room = Arc::clone(&self.room);
        let permit = room
            .acquire_many_owned(weight)
            .await
            .map_err(|_| Unwanted)?;
        self.messages
            .send(Message::Bytes(bytes, permit))
            .map_err(|_| Unwanted)
    }

    /// Says how it ended.
    pub(crate) fn end(self, outcome: Result<(), HttpError>) {
        let message = match outcome {
            Ok(()) => Message::End,
            Err(e) => Message::Failed(e),
        };
        // Without a reader nobody wants to know.
        let _ = self.messages.send(message);
    }
}

/// The blocking end. While it waits it returns [`io::ErrorKind::Interrupted`] now and then, which all
/// of `std` takes as "call again", so that whoever reads can look whether it still wants to.
pub(crate) struct Reader {
    messages: Receiver<Message>,
    current: Option<(Bytes, OwnedSemaphorePermit)>,
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
    let task = net.spawn(feed(Feed {
        messages: tx,
        room: Arc::new(Semaphore::new(ROOM as usize)),
    }));
    Reader {
        messages: rx,
        current: None,
        ended: false,
        task,
        net,
    }
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some((bytes, _)) = &mut self.current {
                let n = bytes.len().min(buf.len());
                bytes.copy_to_slice(&mut buf[..n]);
                if bytes.is_empty() {
                    self.current = None;
                }
                if n > 0 {
                    return Ok(n);
                }
            }
            if self.ended {
                return Ok(0);
            }
            match self.messages.recv_timeout(TICK) {
                Ok(Message::Bytes(bytes, permit)) => self.current = Some((bytes, permit)),
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
        let mut reader = pipe(net(), |feed| async move {
            for i in 0..100u8 {
                feed.send(Bytes::from(vec![i; 70_000])).await.unwrap();
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
        let mut reader = pipe(net(), |feed| async move {
            feed.send(Bytes::from_static(b"abc")).await.unwrap();
        });
        let mut all = Vec::new();
        assert!(reader.read_to_end(&mut all).is_err());
        assert_eq!(all, b"abc");
        assert!(reader.read(&mut [0]).is_err());
    }

    #[test]
    fn an_error_comes_after_the_bytes_before_it() {
        let mut reader = pipe(net(), |feed| async move {
            feed.send(Bytes::from_static(b"abc")).await.unwrap();
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
        let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let (full_tx, full_rx) = mpsc::channel();
        let mut reader = pipe(net(), |feed| async move {
            loop {
                let one = Bytes::from_static(b"x");
                let fits = feed.room.available_permits() >= LEAST as usize;
                if !fits {
                    let _ = full_tx.send(());
                }
                if feed.send(one).await.is_err() {
                    return;
                }
                counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        full_rx.recv().unwrap();
        let most = (ROOM / LEAST) as usize;
        assert_eq!(sent.load(std::sync::atomic::Ordering::SeqCst), most);
        // Room comes back as bytes are taken.
        let mut buf = vec![0; 2 * most];
        reader.read_exact(&mut buf).unwrap();
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
