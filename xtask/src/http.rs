//! A file server for the demo: HTTP/1.1 on the loopback address, one file, HEAD, GET, ranges and
//! validators. A fixture, not a product: it trusts its one client to be ours, yet bounds what it
//! reads from it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// A server that runs until the process ends.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    name: String,
    served: Arc<Served>,
}

/// What went over the wire so far.
#[derive(Debug, Default)]
struct Served {
    bytes: AtomicU64,
    requests: AtomicU64,
}

/// The file and what identifies it.
#[derive(Debug)]
struct Resource {
    file: File,
    size: u64,
    tag: String,
    path: String,
}

impl Server {
    /// Serves `file` under its own name on a free port of the loopback.
    pub(crate) fn start(file: &Path) -> Result<Self> {
        Self::start_on(&Ipv4Addr::LOCALHOST.to_string(), file)
    }

    /// The same on another address of this host.
    pub(crate) fn start_on(host: &str, file: &Path) -> Result<Self> {
        let name = file
            .file_name()
            .context("a file has a name")?
            .to_string_lossy()
            .into_owned();
        let facts = fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?;
        let resource = Arc::new(Resource {
            file: File::open(file).with_context(|| format!("opening {}", file.display()))?,
            size: facts.len(),
            tag: format!("\"{:x}-{:x}\"", facts.mtime(), facts.len()),
            path: format!("/{name}"),
        });
        let listener =
            TcpListener::bind((host, 0)).with_context(|| format!("listening on {host}"))?;
        let address = listener.local_addr().context("asking for the port")?;
        let served = Arc::new(Served::default());
        let counters = Arc::clone(&served);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (resource, served) = (Arc::clone(&resource), Arc::clone(&counters));
                // A client that goes away mid-answer is its own business.
                thread::spawn(move || drop(talk(&stream, &resource, &served)));
            }
        });
        Ok(Self {
            address,
            name,
            served,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/{}", self.address, self.name)
    }

    /// Bytes of the file sent, and requests answered.
    pub(crate) fn served(&self) -> (u64, u64) {
        (
            self.served.bytes.load(Ordering::Relaxed),
            self.served.requests.load(Ordering::Relaxed),
        )
    }
}

/// A request, as far as we care.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    range: Option<String>,
    if_range: Option<String>,
    close: bool,
}

/// What to answer with.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    Part(Range<u64>),
    NotSatisfiable,
    NotFound,
    NotAllowed,
}

fn talk(stream: &TcpStream, resource: &Resource, served: &Served) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        served.requests.fetch_add(1, Ordering::Relaxed);
        let answer = decide(&request, resource);
        reply(stream, &request, &answer, resource, served)?;
        if request.close {
            break;
        }
    }
    Ok(())
}

/// One request's head, of at most 16 KiB; `None` when the client is done.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = reader.take(16 << 10);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_default().to_owned();
    let mut request = Request {
        method: word(),
        path: word(),
        ..Request::default()
    };
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request's head does not end",
            ));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                return Ok(Some(request));
            }
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a header without a colon",
            ));
        };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value),
            "if-range" => request.if_range = Some(value),
            "connection" => request.close = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
}

fn decide(request: &Request, resource: &Resource) -> Answer {
    if !["GET", "HEAD"].contains(&request.method.as_str()) {
        return Answer::NotAllowed;
    }
    if request.path != resource.path {
        return Answer::NotFound;
    }
    let changed = request
        .if_range
        .as_ref()
        .is_some_and(|tag| *tag != resource.tag);
    match request
        .range
        .as_deref()
        .filter(|_| !changed)
        .map(|range| parse_range(range, resource.size))
    {
        // A form we do not know is to be ignored, says the standard.
        None | Some(None) => Answer::Whole,
        Some(Some(range)) if range.is_empty() => Answer::NotSatisfiable,
        Some(Some(range)) => Answer::Part(range),
    }
}

/// `bytes=A-B`, `bytes=A-` or `bytes=-N`; empty if nothing of it is in the file.
fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let count: u64 = last.parse().ok()?;
        return Some(size.saturating_sub(count)..size);
    }
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() {
        size
    } else {
        last.parse::<u64>().ok()?.saturating_add(1).min(size)
    };
    Some(first.min(end)..end)
}

fn reply(
    mut stream: &TcpStream,
    request: &Request,
    answer: &Answer,
    resource: &Resource,
    served: &Served,
) -> io::Result<()> {
    let size = resource.size;
    let (status, range, extra) = match answer {
        Answer::Whole => ("200 OK", 0..size, String::new()),
        Answer::Part(part) => {
            let content = format!(
                "Content-Range: bytes {}-{}/{size}\r\n",
                part.start,
                part.end - 1
            );
            ("206 Partial Content", part.clone(), content)
        }
        Answer::NotSatisfiable => (
            "416 Range Not Satisfiable",
            0..0,
            format!("Content-Range: bytes */{size}\r\n"),
        ),
        Answer::NotFound => ("404 Not Found", 0..0, String::new()),
        Answer::NotAllowed => (
            "405 Method Not Allowed",
            0..0,
            "Allow: GET, HEAD\r\n".to_owned(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\n\
         Accept-Ranges: bytes\r\nETag: {}\r\n{extra}\r\n",
        range.end - range.start,
        resource.tag
    );
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let mut buffer = vec![0; 256 << 10];
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from(range.end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let got = resource.file.read_at(&mut buffer[..want], at)?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter",
            ));
        }
        stream.write_all(&buffer[..got])?;
        at += got as u64;
        served.bytes.fetch_add(got as u64, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends the text and gives everything that comes back.
    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn server(name: &str) -> Server {
        let path = std::env::temp_dir().join(format!("longshore-{}-{name}", std::process::id()));
        fs::write(&path, "0123456789").unwrap();
        let server = Server::start(&path).unwrap();
        fs::remove_file(&path).unwrap();
        server
    }

    #[test]
    fn a_file_is_served_whole_and_in_parts() {
        let server = server("parts");
        let get = |headers: &str| {
            ask(
                &server,
                &format!(
                    "GET /{} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n",
                    server.name
                ),
            )
        };
        let whole = get("");
        assert!(
            whole.starts_with("HTTP/1.1 200 ") && whole.ends_with("\r\n\r\n0123456789"),
            "{whole}"
        );
        let part = get("Range: bytes=2-4\r\n");
        assert!(
            part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\n234"),
            "{part}"
        );
        assert!(part.contains("Content-Range: bytes 2-4/10\r\n"), "{part}");
        let tag = whole
            .lines()
            .find_map(|line| line.strip_prefix("ETag: "))
            .unwrap();
        let same = get(&format!("Range: bytes=-3\r\nIf-Range: {tag}\r\n"));
        assert!(same.ends_with("\r\n\r\n789"), "{same}");
        let changed = get("Range: bytes=-3\r\nIf-Range: \"other\"\r\n");
        assert!(changed.starts_with("HTTP/1.1 200 "), "{changed}");
        assert_eq!(server.served().0, 10 + 3 + 3 + 10);
    }

    #[test]
    fn a_head_has_the_length_and_no_body_and_the_connection_stays() {
        let server = server("head");
        let name = &server.name;
        let answers = ask(
            &server,
            &format!(
                "HEAD /{name} HTTP/1.1\r\n\r\nGET /{name} HTTP/1.1\r\nConnection: close\r\nRange: bytes=9-\r\n\r\n"
            ),
        );
        let (head, body) = answers.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Content-Length: 10"), "{head}");
        assert!(
            body.starts_with("HTTP/1.1 206 ") && body.ends_with("\r\n\r\n9"),
            "{body}"
        );
        assert_eq!(server.served(), (1, 2));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let server = server("refuse");
        let name = &server.name;
        assert!(
            ask(&server, "GET /other HTTP/1.1\r\nConnection: close\r\n\r\n")
                .starts_with("HTTP/1.1 404 ")
        );
        let post = format!("POST /{name} HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(ask(&server, &post).starts_with("HTTP/1.1 405 "));
        let beyond =
            format!("GET /{name} HTTP/1.1\r\nConnection: close\r\nRange: bytes=10-\r\n\r\n");
        assert!(ask(&server, &beyond).starts_with("HTTP/1.1 416 "));
    }

    #[test]
    fn ranges_are_read_in_all_three_forms() {
        assert_eq!(parse_range("bytes=0-0", 10), Some(0..1));
        assert_eq!(parse_range("bytes=5-", 10), Some(5..10));
        assert_eq!(parse_range("bytes=-4", 10), Some(6..10));
        assert_eq!(parse_range("bytes=-40", 10), Some(0..10));
        assert_eq!(parse_range("bytes=5-99", 10), Some(5..10));
        assert_eq!(parse_range("bytes=5-18446744073709551615", 10), Some(5..10));
        assert!(parse_range("bytes=20-30", 10).unwrap().is_empty());
        assert_eq!(parse_range("bytes=0-1,3-4", 10), None);
        assert_eq!(parse_range("lines=0-1", 10), None);
    }
}
