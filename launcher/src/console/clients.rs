//! Clients of our own console socket: each reads all output and may type.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::SCROLLBACK;
use super::ring::Ring;

/// More than people need; each holds a buffer.
const MAX_CLIENTS: usize = 16;
/// How often a client that sends nothing more is looked at for having left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Accepts until the console ends, then lets the clients have what is left; they end when dropped.
pub(super) async fn serve(listener: UnixListener, ring: Arc<Ring>, input: mpsc::Sender<Bytes>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if clients.len() < MAX_CLIENTS => {
                    clients.spawn(client(stream, Arc::clone(&ring), input.clone()));
                }
                Ok((mut stream, _)) => {
                    // Told if it listens at once; not waited for.
                    drop(stream.try_write(b"[longshore: too many console clients]\r\n"));
                    drop(stream.shutdown().await);
                }
                Err(error) => {
                    // Out of descriptors, most likely: others may close some.
                    tracing::warn!(%error, "accepting a console client");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            },
            Some(_) = clients.join_next() => {}
            () = ring.closed() => break,
        }
    }
    drop(listener);
    while clients.join_next().await.is_some() {}
}

async fn client(stream: UnixStream, ring: Arc<Ring>, input: mpsc::Sender<Bytes>) {
    let (from_client, to_client) = stream.into_split();
    let (left, leaving) = tokio::sync::oneshot::channel();
    let typing = async {
        forward(from_client, input).await;
        let _ = left.send(());
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = show(ring, to_client, leaving) => {}
        () = typing => {}
    }
}

async fn forward(mut from_client: OwnedReadHalf, input: mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; 1 << 10];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        let typed = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        if input.send(typed).await.is_err() {
            return;
        }
    }
}

/// Shows output until the console ends or the client is gone. A client that has closed only its own
/// side still reads; one that has left is noticed though the guest be silent.
async fn show(
    ring: Arc<Ring>,
    mut to_client: OwnedWriteHalf,
    mut leaving: tokio::sync::oneshot::Receiver<()>,
) {
    let mut reader = ring.reader_near_end(SCROLLBACK);
    let mut silent = false;
    loop {
        let output = tokio::select! {
            output = reader.next() => output,
            _ = &mut leaving, if !silent => {
                silent = true;
                continue;
            }
            () = tokio::time::sleep(LOOK_EVERY), if silent => {
                let ready = to_client.ready(Interest::WRITABLE).await;
                if ready.is_ok_and(|ready| !ready.is_write_closed()) {
                    continue;
                }
                return;
            }
        };
        let Some(output) = output else { return };
        let mark = output.mark().unwrap_or_default();
        if to_client.write_all(mark.as_bytes()).await.is_err()
            || to_client.write_all(&output.data).await.is_err()
        {
            return;
        }
    }
}
