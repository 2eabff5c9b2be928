//! Random access by ranged requests.

use std::sync::Arc;
use std::thread;

use longshore_image::ReadAt;
use longshore_importer::HttpError;
use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Length, Page, Ranges};

use super::{of_io, open, options, read_all, serving};

fn check(random: &dyn ReadAt, expected: &[u8], at: usize, len: usize) {
    let mut buf = vec![0; len];
    random.read_exact_at(&mut buf, at as u64).unwrap();
    assert!(buf == expected[at..at + len], "at {at}");
}

#[test]
fn reads_give_the_bytes_that_are_there() {
    let expected = disk(3_000_001, 1);
    for ranges in [Ranges::Work, Ranges::NotFromZero, Ranges::Capped(100_000)] {
        let (_server, url) = serving("/disk", Page::of(expected.clone()).ranges(ranges));
        let source = open(&url, &options());
        let random = source.random().unwrap();
        assert_eq!(random.len(), 3_000_001);
        for (at, len) in [
            (0, 1),
            (262_143, 2),
            (100, 1_000_000),
            (2_999_999, 2),
            (0, 3_000_001),
            (5, 0),
        ] {
            check(random.as_ref(), &expected, at, len);
        }
        for (at, len) in [(3_000_000, 2), (3_000_001, 1), (u64::MAX, 2)] {
            let error = random.read_exact_at(&mut vec![0; len], at).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        }
    }
}

#[test]
fn a_walk_over_tables_takes_few_requests_and_no_more_bytes_than_it_must() {
    let expected = disk(6_000_000, 2);
    // The stream waits, so that only the walk is counted.
    let page = Page::of(expected.clone()).fault(Fault::Stall(0));
    let (server, url) = serving("/disk", page);
    let source = open(&url, &options());
    let random = source.random().unwrap();
    for at in (2_000_000..3_000_000).step_by(512) {
        check(random.as_ref(), &expected, at, 512);
    }
    let log = server.log();
    assert!(log.requests.len() <= 1 + 5, "{}", log.requests.len());
    assert!(log.sent <= 5 * 262_144, "{}", log.sent);
    for request in &log.requests[1..] {
        assert_eq!(request.header("if-range"), Some("\"v1\""));
    }
}

#[test]
fn many_threads_may_read_at_once() {
    let expected = Arc::new(disk(8_000_000, 3));
    let (_server, url) = serving("/disk", Page::of(expected.as_slice()));
    let source = open(&url, &options());
    let random = source.random().unwrap();
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (random, expected) = (Arc::clone(&random), Arc::clone(&expected));
            thread::spawn(move || {
                for i in 0..20 {
                    let at = (n * 977_777 + i * 333_333) % 7_900_000;
                    check(random.as_ref(), &expected, at, 70_000);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_read_that_fails_is_tried_again_alone() {
    let expected = disk(1_000_000, 4);
    let page = Page::of(expected.clone())
        .fault(Fault::Nothing)
        .fault(Fault::Status(503))
        .fault(Fault::Cut(1000))
        .fault(Fault::HangUp);
    let (_server, url) = serving("/disk", page);
    let source = open(&url, &options());
    check(source.random().unwrap().as_ref(), &expected, 500_000, 100);
}

#[test]
fn a_read_of_changed_content_is_an_error() {
    let body = disk(1_000_000, 5);
    for after in [
        Page::of(body.clone()).etag(Some("\"v2\"")),
        Page::of(body.clone()).etag(None),
        Page::of(&body[..900_000]).etag(Some("\"v2\"")),
        Page::of(&body[..100]).etag(Some("\"v2\"")),
    ] {
        let (server, url) = serving("/disk", Page::of(body.clone()));
        let source = open(&url, &options());
        let random = source.random().unwrap();
        check(random.as_ref(), &body, 0, 100);
        server.set("/disk", after);
        let error = random.read_exact_at(&mut [0; 100], 800_000).unwrap_err();
        let error = of_io(&error);
        assert!(matches!(error, HttpError::Changed { .. }), "{error}");
    }
}

#[test]
fn there_is_no_random_access_where_it_could_mix_states_or_does_not_work() {
    let body = disk(100_000, 6);
    let page = || Page::of(body.clone());
    for page in [
        page().ranges(Ranges::None),
        page().ranges(Ranges::AnnouncedOnly),
        page().etag(None),
        page().etag(Some("W/\"v1\"")),
        page().ranges(Ranges::NotFromZero).length(Length::Chunked),
        page().ranges(Ranges::None).length(Length::UntilClose),
    ] {
        let what = format!("{page:?}");
        let (_server, url) = serving("/disk", page);
        let mut source = open(&url, &options());
        assert!(source.random().is_none(), "{}", &what[..80]);
        assert!(!source.prefers_random());
        assert!(read_all(source.as_mut()).unwrap() == body);
    }
}

#[test]
fn a_server_whose_ranges_are_off_is_an_error_and_no_wrong_bytes() {
    let body = disk(1_000_000, 7);
    for ranges in [Ranges::Shifted, Ranges::Capped(1000)] {
        let (_server, url) = serving("/disk", Page::of(body.clone()).ranges(ranges));
        let source = open(&url, &options());
        let random = source.random().unwrap();
        let error = random.read_exact_at(&mut [0; 100], 500_000).unwrap_err();
        let error = of_io(&error);
        let cause = super::last_cause(error);
        assert!(matches!(cause, HttpError::Range { .. }), "{error}");
    }
}
