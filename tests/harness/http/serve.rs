//! One connection: requests in, answers and faults out.

use std::io::{self, BufReader, Read, Write};
use std::ops::Range;

use super::page::{Fault, Length, Page, Ranges, Rate};
use super::wire::{Wire, read_request};
use super::{Request, State};

/// Bytes written at once.
const PIECE: u64 = 64 << 10;

/// Whether the connection can be used for another request.
#[derive(PartialEq, Eq)]
enum After {
    Keep,
    Close,
}

pub(super) fn connection(mut wire: BufReader<Box<dyn Wire>>, state: &State) {
    // Clients that go away, or refuse the certificate, are part of the tests.
    while let Ok(Some(request)) = read_request(&mut wire) {
        state.log(|log| log.requests.push(request.clone()));
        match answer(&mut wire, &request, state) {
            Ok(After::Keep) => {}
            Ok(After::Close) => break,
            Err(_) => {
                state.log(|log| log.gone += 1);
                break;
            }
        }
    }
}

/// The page as it is for this request, and what goes wrong with it.
fn look_up(request: &Request, state: &State) -> (Page, Fault) {
    // A proxy is asked for a whole URL; the host is this one all the same.
    let path = match request.target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => &request.target,
    };
    let path = path.split('?').next().unwrap_or(path);
    let mut pages = state.pages.lock().unwrap();
    let Some(page) = pages.get_mut(path) else {
        return (Page::status(404), Fault::Nothing);
    };
    if request.method != "GET" {
        return (page.clone(), Fault::Nothing);
    }
    let fault = page.faults.pop_front().unwrap_or(Fault::Nothing);
    if let Fault::Become(other) = fault {
        *page = *other;
        return (page.clone(), Fault::Nothing);
    }
    (page.clone(), fault)
}

fn answer<W: Wire + ?Sized>(
    wire: &mut BufReader<Box<W>>,
    request: &Request,
    state: &State,
) -> io::Result<After> {
    let (page, fault) = look_up(request, state);
    match fault {
        Fault::HangUp => return Ok(After::Close),
        Fault::StallAtOnce => return Err(until_gone(wire)),
        Fault::Garbage => {
            wire.get_mut()
                .write_all(b"\x00\x01 not HTTP at all\r\n\r\n")?;
            return Ok(After::Close);
        }
        Fault::Status(status) => return status_only(wire, status, ""),
        Fault::RetryAfter(seconds) => {
            return status_only(wire, 503, &format!("Retry-After: {seconds}\r\n"));
        }
        Fault::Nothing | Fault::Cut(_) | Fault::Stall(_) | Fault::Become(_) => {}
    }
    if page.auth.is_some() && page.auth.as_deref() != request.header("authorization") {
        let challenge = format!("WWW-Authenticate: {}\r\n", page.challenge);
        return status_only(wire, 401, &challenge);
    }
    match request.method.as_str() {
        "GET" => {}
        "HEAD" if page.head => {}
        _ => return status_only(wire, 405, ""),
    }
    let Some((status, range)) = choose_range(&page, request) else {
        let extra = format!("Content-Range: bytes */{}\r\n", page.body.len());
        return status_only(wire, 416, &extra);
    };
    let head = headers(&page, status, &range);
    wire.get_mut().write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(After::Keep);
    }
    let until = match fault {
        Fault::Cut(n) | Fault::Stall(n) => (range.start + n).min(range.end),
        _ => range.end,
    };
    let chunked = page.length == Length::Chunked && status == 200;
    body(wire, &page, range.start..until, chunked, state)?;
    match fault {
        Fault::Stall(_) => {
            wire.get_mut().flush()?;
            return Err(until_gone(wire));
        }
        Fault::Cut(_) => return Ok(After::Close),
        _ => {}
    }
    if chunked {
        wire.get_mut().write_all(b"0\r\n\r\n")?;
    }
    wire.get_mut().flush()?;
    Ok(match page.length {
        Length::UntilClose => After::Close,
        _ => After::Keep,
    })
}

/// Status and range of the answer; `None` for 416.
fn choose_range(page: &Page, request: &Request) -> Option<(u16, Range<u64>)> {
    let len = page.body.len();
    let whole = Some((page.status, 0..len));
    let Some(asked) = request.header("range").filter(|_| page.status == 200) else {
        return whole;
    };
    if matches!(page.ranges, Ranges::None | Ranges::AnnouncedOnly) {
        return whole;
    }
    if let Some(named) = request.header("if-range")
        && page.etag.as_deref() != Some(named)
        && page.last_modified.as_deref() != Some(named)
    {
        return whole;
    }
    let Some((first, last)) = parse_range(asked) else {
        return whole;
    };
    let end = last.map_or(len, |last| last.saturating_add(1).min(len));
    if page.ranges == Ranges::NotFromZero && first == 0 && end == len {
        return whole;
    }
    if first >= len {
        return None;
    }
    let end = match page.ranges {
        Ranges::Capped(most) => end.min(first + most),
        _ => end,
    };
    Some((206, first..end))
}

fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}

fn headers(page: &Page, status: u16, range: &Range<u64>) -> String {
    use std::fmt::Write as _;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", phrase(status));
    let mut line = |name: &str, value: &str| write!(head, "{name}: {value}\r\n").unwrap();
    let part = status == 206;
    if part {
        let off = u64::from(page.ranges == Ranges::Shifted && range.start > 0);
        let (first, last) = (range.start - off, range.end - 1 - off);
        line(
            "Content-Range",
            &format!("bytes {first}-{last}/{}", page.body.len()),
        );
    }
    match page.length {
        Length::Known => line("Content-Length", &(range.end - range.start).to_string()),
        _ if part => line("Content-Length", &(range.end - range.start).to_string()),
        Length::Chunked => line("Transfer-Encoding", "chunked"),
        Length::UntilClose => line("Connection", "close"),
    }
    if page.ranges != Ranges::None && page.status == 200 {
        line("Accept-Ranges", "bytes");
    }
    if !(part && page.ranges == Ranges::Nameless) {
        if let Some(tag) = &page.etag {
            line("ETag", tag);
        }
        if let Some(time) = &page.last_modified {
            line("Last-Modified", time);
        }
    }
    for (name, value) in &page.headers {
        line(name, value);
    }
    head + "\r\n"
}

fn body<W: Wire + ?Sized>(
    wire: &mut BufReader<Box<W>>,
    page: &Page,
    range: Range<u64>,
    chunked: bool,
    state: &State,
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let rate = page.throttle.as_ref().and_then(Rate::get);
        let most = rate.map_or(PIECE, |rate| (rate / 20).max(1));
        let n = most.min(range.end - at);
        let piece = page.body.read(at, n);
        let out = wire.get_mut();
        if chunked {
            write!(out, "{n:x}\r\n")?;
        }
        out.write_all(&piece)?;
        if chunked {
            out.write_all(b"\r\n")?;
        }
        state.log(|log| log.sent += n);
        at += n;
        if let (Some(rate), Some(throttle)) = (rate, &page.throttle) {
            out.flush()?;
            throttle.pass(n, rate);
        }
    }
    Ok(())
}

fn status_only<W: Wire + ?Sized>(
    wire: &mut BufReader<Box<W>>,
    status: u16,
    extra: &str,
) -> io::Result<After> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\n{extra}Content-Length: 0\r\n\r\n",
        phrase(status)
    );
    wire.get_mut().write_all(head.as_bytes())?;
    wire.get_mut().flush()?;
    Ok(After::Keep)
}

/// Waits for the client to close the connection.
fn until_gone(wire: &mut impl Read) -> io::Error {
    let _ = io::copy(wire, &mut io::sink());
    io::ErrorKind::ConnectionAborted.into()
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        503 => "Service Unavailable",
        _ => "Whatever",
    }
}
