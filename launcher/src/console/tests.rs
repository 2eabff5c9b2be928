//! Against a fake QEMU: a listener at the serial socket, driven by the test.

use std::path::Path;

use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Rig {
    directory: tempfile::TempDir,
    listener: UnixListener,
    console: Console,
}

impl Rig {
    fn new() -> Self {
        Self::with_log(LOG_LIMIT)
    }

    fn with_log(limit: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        let listener = UnixListener::bind(at("serial.sock")).unwrap();
        let console = Console::start(Config {
            serial: at("serial.sock"),
            log: Some(LogFile {
                path: at("console.log"),
                limit,
            }),
            listen: Some(at("console.sock")),
        })
        .unwrap();
        Self {
            directory,
            listener,
            console,
        }
    }

    /// The fake QEMU's end of the connection.
    async fn guest(&self) -> UnixStream {
        let (stream, _) = timeout(SOON, self.listener.accept())
            .await
            .unwrap()
            .unwrap();
        timeout(SOON, self.console.attached()).await.unwrap();
        stream
    }

    async fn client(&self) -> UnixStream {
        UnixStream::connect(self.path("console.sock"))
            .await
            .unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

async fn expect(stream: &mut (impl tokio::io::AsyncRead + Unpin), text: &str) {
    let mut buffer = vec![0; text.len()];
    timeout(SOON, stream.read_exact(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), text);
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn every_reader_gets_all_that_the_guest_printed() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    let mut early = rig.client().await;
    guest.write_all(b"one ").await.unwrap();
    expect(&mut early, "one ").await;
    let mut late = rig.client().await;
    guest.write_all(b"two").await.unwrap();
    expect(&mut early, "two").await;
    expect(&mut late, "one two").await;

    let mut stdout = Vec::new();
    let reader = rig.console.reader();
    drop(guest);
    let log = rig.path("console.log");
    let ((), copied) = tokio::join!(rig.console.finish(SOON), copy_out(reader, &mut stdout));
    copied.unwrap();
    assert_eq!(stdout, b"one two");
    assert_eq!(read(&log), "one two");
    let mut rest = Vec::new();
    early.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn what_is_still_in_the_socket_at_the_end_reaches_the_log() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    let text = "x".repeat(100 << 10);
    let writing = async {
        guest.write_all(text.as_bytes()).await.unwrap();
        drop(guest);
    };
    let log = rig.path("console.log");
    tokio::join!(writing, rig.console.finish(SOON));
    assert_eq!(read(&log).len(), text.len());
}

#[tokio::test]
async fn a_client_that_does_not_read_never_holds_up_the_guest() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    let mut idle = rig.client().await;
    guest.write_all(b"start").await.unwrap();
    expect(&mut idle, "start").await;

    let piece = vec![b'.'; 64 << 10];
    let total = 4 * HISTORY;
    for _ in 0..total / piece.len() {
        timeout(SOON, guest.write_all(&piece))
            .await
            .expect("the guest waits")
            .unwrap();
    }
    guest.write_all(b"end").await.unwrap();
    drop(guest);

    let mut seen = String::new();
    let reading = idle.read_to_string(&mut seen);
    let ((), read) = tokio::join!(rig.console.finish(SOON), reading);
    read.unwrap();
    assert!(seen.ends_with("end"));
    let mark = seen
        .find("[longshore: ")
        .expect("a mark in place of what was lost");
    let lost: usize = seen[mark..]
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap();
    let dots = seen.bytes().filter(|byte| *byte == b'.').count();
    assert_eq!(dots + lost, total, "every byte is either shown or counted");
}

#[tokio::test]
async fn input_of_all_writers_reaches_the_guest() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    first.write_all(b"ls\r").await.unwrap();
    expect(&mut guest, "ls\r").await;
    second.write_all(b"ps\r").await.unwrap();
    expect(&mut guest, "ps\r").await;
    rig.console
        .input()
        .send(Bytes::from_static(b"id\r"))
        .await
        .unwrap();
    expect(&mut guest, "id\r").await;
}

#[tokio::test]
async fn output_flows_while_the_guest_takes_no_input() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    let mut client = rig.client().await;
    // More than the sockets hold between client and guest, so that this write is still waiting.
    let typed = vec![b'k'; 4 << 20];
    let typing = tokio::spawn(async move { client.write_all(&typed).await.map(|()| client) });
    guest.write_all(b"still here").await.unwrap();
    let mut reader = rig.console.reader();
    let output = timeout(SOON, reader.next()).await.unwrap().unwrap();
    assert_eq!(output.data, b"still here");
    assert!(!typing.is_finished());
    typing.abort();
}

#[tokio::test]
async fn the_console_waits_for_a_socket_that_comes_late_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let serial = directory.path().join("serial.sock");
    let console = Console::start(Config {
        serial: serial.clone(),
        log: None,
        listen: None,
    })
    .unwrap();
    let mut reader = console.reader();
    for text in ["first", "second"] {
        let listener = UnixListener::bind(&serial).unwrap();
        let (mut guest, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        timeout(SOON, console.attached()).await.unwrap();
        guest.write_all(text.as_bytes()).await.unwrap();
        let output = timeout(SOON, reader.next()).await.unwrap().unwrap();
        assert_eq!(output.data, text.as_bytes());
        std::fs::remove_file(&serial).unwrap();
    }
}

#[tokio::test]
async fn a_client_that_types_nothing_more_still_reads() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    let mut client = rig.client().await;
    client.write_all(b"q").await.unwrap();
    client.shutdown().await.unwrap();
    expect(&mut guest, "q").await;
    guest.write_all(b"bye").await.unwrap();
    expect(&mut client, "bye").await;
}

#[tokio::test]
async fn clients_beyond_the_limit_are_told_and_places_become_free() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    guest.write_all(b"hello").await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = rig.client().await;
        expect(&mut client, "hello").await;
        clients.push(client);
    }
    expect(&mut rig.client().await, "[longshore: too many").await;
    clients.clear();
    let admitted = async {
        loop {
            let mut text = [0; 5];
            rig.client().await.read_exact(&mut text).await.unwrap();
            if &text == b"hello" {
                return;
            }
        }
    };
    timeout(SOON, admitted)
        .await
        .expect("places of clients that left become free");
}

#[tokio::test]
async fn the_log_is_bounded_kept_across_runs_and_private() {
    let rig = Rig::with_log(10_000);
    let mut guest = rig.guest().await;
    let line = format!("{}\n", "l".repeat(99));
    guest.write_all(line.repeat(1000).as_bytes()).await.unwrap();
    guest.write_all(b"last").await.unwrap();
    drop(guest);
    let (log, before) = (rig.path("console.log"), rig.path("console.log.1"));
    let directory = rig.directory;
    rig.console.finish(SOON).await;
    let newest = read(&log);
    assert!(newest.ends_with("last"), "{} bytes", newest.len());
    let limit = 10_000 + (16 << 10);
    assert!(newest.len() <= limit && read(&before).len() <= limit);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&log).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let listener = UnixListener::bind(directory.path().join("again.sock")).unwrap();
    let console = Console::start(Config {
        serial: directory.path().join("again.sock"),
        log: Some(LogFile {
            path: log.clone(),
            limit: LOG_LIMIT,
        }),
        listen: None,
    })
    .unwrap();
    let (mut guest, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    timeout(SOON, console.attached()).await.unwrap();
    guest.write_all(b" and more").await.unwrap();
    drop(guest);
    console.finish(SOON).await;
    assert!(read(&log).ends_with("last and more"));
}

#[tokio::test]
async fn a_closed_pipe_is_an_ordinary_end_of_a_copy() {
    let rig = Rig::new();
    let mut guest = rig.guest().await;
    let (writer, reader) = tokio::io::duplex(16);
    drop(reader);
    guest.write_all(b"text").await.unwrap();
    copy_out(rig.console.reader(), writer).await.unwrap();
}

#[tokio::test]
async fn our_socket_replaces_a_stale_one_and_goes_with_the_console() {
    let directory = tempfile::tempdir().unwrap();
    let listen = directory.path().join("console.sock");
    drop(UnixListener::bind(&listen).unwrap());
    let serial = directory.path().join("serial.sock");
    let config = Config {
        serial,
        log: None,
        listen: Some(listen.clone()),
    };
    let console = Console::start(config).unwrap();
    UnixStream::connect(&listen).await.unwrap();
    drop(console);
    assert!(!listen.exists());
}
