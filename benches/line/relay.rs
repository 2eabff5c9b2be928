//! A long line, played: a TCP proxy that holds every byte back for half a round trip, gives each
//! connection a window as TCP does, and cuts connections.
//!
//! The kernel that this has to run on has no netem. A window starts at ten segments and grows by what has
//! been acknowledged, a round trip after it was sent, up to `window` bytes: a small one is what packet
//! loss leaves of it (about 1.22 segments over the square root of the share lost, after Mathis et al.).

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a connection may send before anything was acknowledged.
const FIRST_WINDOW: usize = 10 * 1448;
/// What is read at once.
const STEP: usize = 64 << 10;
/// Pieces under way: more than the largest window has.
const PIECES: usize = 4096;

/// What the line is like.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where to connect to
    #[arg(long)]
    to: SocketAddr,
    /// Milliseconds of a round trip
    #[arg(long)]
    delay: u64,
    /// Bytes of a connection that may be under way
    #[arg(long)]
    window: usize,
    /// Cut each connection after about so many bytes; 0 for never
    #[arg(long, default_value_t = 0)]
    cut: u64,
}

/// Serves until it is killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen).context("listening")?;
    let connections = AtomicU64::new(0);
    for client in listener.incoming() {
        let client = client.context("accepting")?;
        let number = connections.fetch_add(1, Ordering::Relaxed);
        // Not all at the same place: from half to three halves of it.
        let cut = (args.cut > 0).then(|| args.cut / 2 + args.cut / 8 * (number * 5 % 9));
        let args = args.clone();
        thread::spawn(move || drop(connection(&client, &args, cut)));
    }
    Ok(())
}

/// Bytes, and when they arrive.
type Piece = (Instant, Vec<u8>);

fn connection(client: &TcpStream, args: &Args, cut: Option<u64>) -> Result<()> {
    let trip = Duration::from_millis(args.delay);
    let server = TcpStream::connect(args.to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // The handshake.
    thread::sleep(trip);
    let window = args.window;
    let (up_client, up_server) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || one_way(&up_client, &up_server, trip, window, None));
    one_way(&server, client, trip, window, cut);
    drop(client.shutdown(Shutdown::Both));
    drop(server.shutdown(Shutdown::Both));
    drop(up.join());
    Ok(())
}

/// Passes bytes on until there are no more, or `cut` of them have come.
fn one_way(from: &TcpStream, to: &TcpStream, trip: Duration, window: usize, cut: Option<u64>) {
    let (send, receive) = sync_channel(PIECES);
    thread::scope(|scope| {
        scope.spawn(|| {
            arrive(to, &receive);
            // Whoever is still reading for us stops.
            drop(from.shutdown(Shutdown::Read));
            drop(receive);
        });
        depart(from, &send, trip, window, cut);
        drop(send);
    });
    drop(to.shutdown(Shutdown::Write));
}

fn depart(
    mut from: &TcpStream,
    send: &SyncSender<Piece>,
    trip: Duration,
    most: usize,
    cut: Option<u64>,
) {
    let mut left = cut.unwrap_or(u64::MAX);
    let mut window = FIRST_WINDOW.min(most);
    let mut under_way: VecDeque<(Instant, usize)> = VecDeque::new();
    let mut in_flight = 0;
    let mut buffer = vec![0; STEP];
    while left > 0 {
        while let Some((acknowledged, n)) = under_way.front().copied() {
            let now = Instant::now();
            if acknowledged > now {
                if in_flight < window {
                    break;
                }
                thread::sleep(acknowledged - now);
            }
            under_way.pop_front();
            in_flight -= n;
            window = (window + n).min(most);
        }
        let room = (window - in_flight).min(STEP);
        let room = room.min(usize::try_from(left).unwrap_or(STEP));
        let Some(there) = buffer.get_mut(..room) else {
            return;
        };
        let n = match from.read(there) {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        let now = Instant::now();
        let piece = buffer.get(..n).unwrap_or_default().to_vec();
        if send.send((now + trip / 2, piece)).is_err() {
            return;
        }
        under_way.push_back((now + trip, n));
        in_flight += n;
        left -= n as u64;
    }
}

fn arrive(mut to: &TcpStream, receive: &Receiver<Piece>) {
    while let Ok((due, bytes)) = receive.recv() {
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
        }
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(delay: u64, window: usize, cut: u64, bytes: usize) -> (Vec<u8>, Duration) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let listen = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let args = Args {
            listen,
            to,
            delay,
            window,
            cut,
        };
        thread::spawn(move || run(&args));
        thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut asked = [0];
            client.read_exact(&mut asked).unwrap();
            let all: Vec<u8> = (0..=250).cycle().take(bytes).collect();
            drop(client.write_all(&all));
        });
        let started = Instant::now();
        let mut client = loop {
            match TcpStream::connect(listen) {
                Ok(client) => break client,
                Err(_) => assert!(started.elapsed() < Duration::from_secs(10)),
            }
        };
        let started = Instant::now();
        client.write_all(b"x").unwrap();
        let mut all = Vec::new();
        drop(client.read_to_end(&mut all));
        (all, started.elapsed())
    }

    #[test]
    fn bytes_come_as_they_are_and_no_sooner_than_windows_allow() {
        let bytes = 10 * 20_000;
        let (all, took) = through(20, 20_000, 0, bytes);
        let expected: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        assert!(all == expected);
        // The handshake, the request and its answer, and ten windows less the first.
        assert!(took >= Duration::from_millis(20 * 11), "{took:?}");
    }

    #[test]
    fn a_connection_is_cut_where_it_should_be() {
        let (all, _) = through(1, 1 << 20, 100_000, 1_000_000);
        assert_eq!(all.len(), 50_000);
    }
}
