//! The one connection to QEMU's serial socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::ring::Ring;

/// Between attempts to connect; QEMU makes its sockets within a tenth of a second.
const RETRY: Duration = Duration::from_millis(20);

/// Keeps a connection until told that there will be no further one; closes the ring at the end.
pub(super) async fn run(
    serial: PathBuf,
    ring: Arc<Ring>,
    mut input: mpsc::Receiver<Bytes>,
    attached: watch::Sender<bool>,
    mut ending: watch::Receiver<bool>,
) {
    loop {
        let connected = tokio::select! {
            stream = connect(&serial) => Some(stream),
            _ = ending.wait_for(|ending| *ending) => None,
        };
        let Some(stream) = connected else { break };
        attached.send_replace(true);
        exchange(stream, &ring, &mut input).await;
        attached.send_replace(false);
    }
    ring.close();
}

async fn connect(serial: &std::path::Path) -> UnixStream {
    loop {
        match crate::socket::connect(serial).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Moves bytes both ways until QEMU closes. All arms are cancel-safe: a read or write that lost the
/// race has moved nothing, and input that was taken stays in `pending`.
async fn exchange(stream: UnixStream, ring: &Ring, input: &mut mpsc::Receiver<Bytes>) {
    let (mut from_guest, mut to_guest) = stream.into_split();
    let mut buffer = vec![0; 4 << 10];
    let mut pending = Bytes::new();
    loop {
        tokio::select! {
            read = from_guest.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => ring.push(buffer.get(..length).unwrap_or_default()),
            },
            written = to_guest.write(&pending), if !pending.is_empty() => match written {
                // The read side will see the end, after what is still to be read.
                Ok(0) | Err(_) => pending.clear(),
                Ok(length) => pending.advance(length),
            },
            Some(typed) = input.recv(), if pending.is_empty() => pending = typed,
        }
    }
}
