//! Servers and lines that break, and content that changes under way.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use longshore_importer::{HttpError, Retry, SourceOptions};
use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Length, Page, Ranges};
use longshore_transfer::{Cancel, Options};

use super::{Import, chain, last_cause, open, options, read_all, refused, serving};

const MODIFIED: &str = "Sat, 21 Nov 2026 10:00:00 GMT";

/// Options for servers that fall silent.
fn impatient() -> SourceOptions {
    SourceOptions {
        stall_timeout: Duration::from_millis(400),
        ..options()
    }
}

/// Those who give up a server that is silent for so many seconds, which no busy machine makes of another one.
fn silent_for(seconds: u64) -> SourceOptions {
    SourceOptions {
        stall_timeout: Duration::from_secs(seconds),
        ..options()
    }
}

#[test]
fn a_cut_connection_is_resumed_where_it_was_cut() {
    let expected = disk(2_000_000, 1);
    for (etag, modified, named) in [
        (Some("\"v1\""), None, "\"v1\""),
        (None, Some(MODIFIED), MODIFIED),
        (Some("W/\"v1\""), Some(MODIFIED), MODIFIED),
    ] {
        let mut page = Page::of(expected.clone()).etag(etag);
        if let Some(time) = modified {
            page = page.last_modified(time);
        }
        let page = page.faults(&Fault::Cut(300_000), 3);
        let (server, url) = serving("/disk.raw", page);
        Import::from_url(&url).made(&expected);
        let log = server.log();
        let ranges: Vec<_> = log.requests.iter().map(|r| r.header("range")).collect();
        let expected_ranges = ["0-", "300000-", "600000-", "900000-"].map(|r| format!("bytes={r}"));
        assert_eq!(ranges, expected_ranges.each_ref().map(|r| Some(r.as_str())));
        for request in &log.requests[1..] {
            assert_eq!(request.header("if-range"), Some(named));
        }
        // Nothing came twice.
        assert_eq!(log.sent, 2_000_000);
    }
}

#[test]
fn a_server_without_ranges_is_read_again_up_to_where_it_was_cut() {
    let expected = disk(2_000_000, 2);
    for ranges in [
        Ranges::None,
        Ranges::AnnouncedOnly,
        Ranges::Nameless,
        Ranges::Shifted,
    ] {
        for length in [Length::Known, Length::Chunked] {
            let page = Page::of(expected.clone())
                .ranges(ranges)
                .length(length)
                .fault(Fault::Cut(500_000))
                .fault(Fault::Cut(100_000))
                .fault(Fault::Cut(1_200_000));
            let (_server, url) = serving("/disk.raw", page);
            println!("{ranges:?} {length:?}");
            Import::from_url(&url).made(&expected);
        }
    }
}

#[test]
fn content_without_a_name_is_compared_with_what_came_before() {
    let expected = disk(2_000_000, 3);
    for ranges in [Ranges::Work, Ranges::None] {
        let page = Page::of(expected.clone())
            .ranges(ranges)
            .etag(None)
            .fault(Fault::Cut(500_000))
            .fault(Fault::Cut(700_000));
        let (server, url) = serving("/disk.raw", page);
        Import::from_url(&url).made(&expected);
        let requests = server.log().requests;
        assert_eq!(requests.len(), 3);
        assert!(requests[1..].iter().all(|r| r.header("range").is_none()));
    }
}

#[test]
fn changed_content_is_an_error_and_leaves_no_file() {
    let old = disk(2_000_000, 4);
    // One byte, before the cut: what came with the new one must not be joined to it.
    let mut new = old.clone();
    new[1000] ^= 1;
    let cut = Fault::Cut(500_000);
    let become_page = |page: Page| Fault::Become(Box::new(page));
    for ranges in [
        Ranges::Work,
        Ranges::None,
        Ranges::Nameless,
        Ranges::Shifted,
    ] {
        for length in [Length::Known, Length::Chunked] {
            let page = |body: &[u8]| Page::of(body).ranges(ranges).length(length);
            let pairs = [
                (page(&old), page(&new).etag(Some("\"v2\""))),
                (
                    page(&old).etag(None).last_modified(MODIFIED),
                    page(&new)
                        .etag(None)
                        .last_modified("Sat, 21 Nov 2026 10:00:01 GMT"),
                ),
                (page(&old).etag(None), page(&new).etag(None)),
                (page(&old), page(&new).etag(None)),
                (page(&old), page(&old[..400_000]).etag(Some("\"v2\""))),
            ];
            for (i, (before, after)) in pairs.into_iter().enumerate() {
                let before = before.fault(cut.clone()).fault(become_page(after));
                let (_server, url) = serving("/disk.raw", before);
                let import = Import::from_url(&url);
                let error = import.failed();
                let what = format!("{ranges:?} {length:?} {i}: {}", chain(error));
                assert!(matches!(error, HttpError::Changed { .. }), "{what}");
                assert_eq!(error.retry(), Retry::Permanent);
            }
        }
    }
}

#[test]
fn a_silent_server_is_asked_again() {
    let expected = disk(1_000_000, 5);
    let page = Page::of(expected.clone())
        .fault(Fault::StallAtOnce)
        .fault(Fault::Stall(200_000))
        .fault(Fault::StallAtOnce);
    let (server, url) = serving("/disk.raw", page);
    Import::of(open(&url, &silent_for(3)).as_mut()).made(&expected);
    let log = server.wait_until(|log| log.gone == 3);
    assert_eq!(log.requests.len(), 4);
}

#[test]
fn a_server_that_stays_silent_is_given_up() {
    let page = Page::of(disk(1_000_000, 5)).faults(&Fault::Stall(0), 9);
    let (_server, url) = serving("/disk.raw", page);
    let once = SourceOptions {
        retries: 1,
        ..impatient()
    };
    let import = Import::of(open(&url, &once).as_mut());
    let error = import.failed();
    assert!(
        matches!(error, HttpError::GaveUp { attempts: 2, .. }),
        "{error}"
    );
    assert!(matches!(last_cause(error), HttpError::Stalled { .. }));
    assert_eq!(error.reason(), "Stalled");
}

#[test]
fn passing_errors_are_tried_again_before_and_after_the_first_byte() {
    let expected = disk(1_000_000, 6);
    let page = Page::of(expected.clone())
        .fault(Fault::Status(500))
        .fault(Fault::HangUp)
        .fault(Fault::Garbage)
        .fault(Fault::RetryAfter(0))
        .fault(Fault::Cut(200_000))
        .fault(Fault::Status(503))
        .fault(Fault::Status(429))
        .fault(Fault::HangUp);
    let (server, url) = serving("/disk.raw", page);
    Import::from_url(&url).made(&expected);
    // A client may send a request again by itself after a connection that hung up.
    assert!(server.log().requests.len() >= 9);
}

#[test]
fn errors_that_do_not_pass_name_the_attempts_and_the_last_one() {
    let page = Page::of(disk(1000, 1)).faults(&Fault::Status(503), 50);
    let (server, url) = serving("/disk.raw", page);
    let error = refused(&url, &options());
    assert!(
        matches!(error, HttpError::GaveUp { attempts: 5, .. }),
        "{error}"
    );
    assert_eq!(error.status(), Some(503));
    assert_eq!(server.log().requests.len(), 5);
}

#[test]
fn a_cut_that_does_not_heal_is_an_error_and_never_a_short_disk() {
    for length in [Length::Known, Length::Chunked] {
        for ranges in [Ranges::Work, Ranges::None] {
            let page = Page::of(disk(1_000_000, 7))
                .ranges(ranges)
                .length(length)
                .fault(Fault::Cut(400_000))
                .faults(&Fault::Cut(0), 4);
            let (_server, url) = serving("/disk.raw", page);
            let import = Import::from_url(&url);
            let error = import.failed();
            let HttpError::GaveUp {
                received, attempts, ..
            } = *error
            else {
                panic!("{error}");
            };
            assert_eq!((received, attempts), (400_000, 5));
            assert!(chain(error).contains("400000"), "{}", chain(error));
            assert_eq!(error.reason(), "ConnectionBroken");
        }
    }
}

#[test]
fn headway_earns_new_attempts_and_its_lack_does_not() {
    let expected = disk(12_000_000, 8);
    // Ten cuts, more than the four retries, but a megabyte and more between them.
    let page = Page::of(expected.clone()).faults(&Fault::Cut(1_100_000), 10);
    let (_server, url) = serving("/disk.raw", page);
    Import::from_url(&url).made(&expected);
    let page = Page::of(expected).faults(&Fault::Cut(1000), 1000);
    let (server, url) = serving("/disk.raw", page);
    let import = Import::from_url(&url);
    assert!(matches!(
        import.failed(),
        HttpError::GaveUp { received: 5000, .. }
    ));
    assert_eq!(server.log().requests.len(), 5);
}

#[test]
fn a_chunked_answer_that_broke_at_its_very_end_is_complete() {
    let expected = disk(300_000, 9);
    // All bytes, but not the last chunk that says so. The next range starts at the end: 416, which
    // does not name the state of what it refuses, so that all is read again.
    let page = Page::of(expected.clone())
        .ranges(Ranges::NotFromZero)
        .length(Length::Chunked)
        .fault(Fault::Cut(300_000));
    let (server, url) = serving("/disk.raw", page);
    let mut source = open(&url, &options());
    assert_eq!(source.len(), None);
    assert!(read_all(source.as_mut()).unwrap() == expected);
    assert_eq!(server.log().requests.len(), 3);
}

#[test]
fn access_that_ends_midway_is_final() {
    let page = Page::of(disk(1_000_000, 1))
        .fault(Fault::Cut(200_000))
        .fault(Fault::Status(403));
    let (server, url) = serving("/disk.raw", page);
    let import = Import::from_url(&url);
    let error = import.failed();
    assert!(
        matches!(
            error,
            HttpError::GaveUp {
                received: 200_000,
                attempts: 2,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        (error.status(), error.retry()),
        (Some(403), Retry::Unauthorized)
    );
    assert_eq!(server.log().requests.len(), 2);
}

#[test]
fn a_transfer_can_be_stopped_while_it_waits_for_the_server() {
    let page = Page::of(disk(4_000_000, 2)).fault(Fault::Stall(1_000_000));
    let (server, url) = serving("/disk.raw", page);
    let cancel = Cancel::default();
    let stopping = cancel.clone();
    let mut source = open(&url, &options());
    let importing =
        thread::spawn(move || Import::with(source.as_mut(), &Options::default(), &cancel));
    server.wait_until(|log| log.sent == 1_000_000);
    let asked = Instant::now();
    stopping.cancel();
    let import = importing.join().unwrap();
    // Far below the minute that a silent server is given.
    assert!(asked.elapsed() < Duration::from_secs(20));
    let error = import.outcome.as_ref().unwrap_err();
    assert_eq!(error.reason(), "Interrupted");
    assert!(!import.target().exists());
    server.wait_until(|log| log.gone == 1);
}

#[test]
fn opening_can_be_stopped_while_it_waits_for_the_server() {
    let (server, url) = serving("/disk.raw", Page::of([]).fault(Fault::StallAtOnce));
    let stoppable = options();
    let cancel = stoppable.cancel.clone();
    let opening = thread::spawn(move || refused(&url, &stoppable));
    server.wait_until(|log| log.requests.len() == 1);
    cancel.cancel();
    assert!(matches!(opening.join().unwrap(), HttpError::Cancelled));
    server.wait_until(|log| log.gone == 1);
}

#[test]
fn a_slow_line_is_not_a_silent_one() {
    let expected = disk(200_000, 3);
    let page = Page::of(expected.clone()).throttle(25_000);
    let (server, url) = serving("/disk.raw", page);
    // The whole takes longer, and no piece of it does.
    let patient = silent_for(5);
    Import::of(open(&url, &patient).as_mut()).made(&expected);
    assert_eq!(server.log().requests.len(), 1);
}

#[test]
fn headers_without_an_end_are_refused_in_bounded_time_and_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/disk.raw", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    // It serves until nobody asks any more; the test does not wait for it.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.write_all(b"HTTP/1.1 200 OK\r\n").is_err() {
                continue;
            }
            let line = format!("X-Much: {}\r\n", "m".repeat(1000));
            while stream.write_all(line.as_bytes()).is_ok() {
                counter.fetch_add(line.len() as u64, Ordering::Relaxed);
            }
        }
    });
    let options = SourceOptions {
        retries: 1,
        ..options()
    };
    let error = refused(&url, &options);
    assert!(
        matches!(last_cause(&error), HttpError::Broken { .. }),
        "{}",
        chain(&error)
    );
    // Each of two attempts ends with the client's own limit; the rest is in the buffers of two sockets.
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 32 << 20, "{sent} bytes of headers");
}
