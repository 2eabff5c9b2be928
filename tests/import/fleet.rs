//! Lines on which one connection gets only a part of what there is.

use longshore_importer::SourceOptions;
use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Log, Page, Ranges};

use super::{Import, open, options, serving};

const LEN: u32 = 20_000_000;

/// What every connection gets, in bytes a second.
const EACH: u64 = 6_000_000;

fn slow(body: &[u8]) -> Page {
    Page::of(body).throttle(EACH)
}

fn content(seed: u64) -> Vec<u8> {
    disk(LEN.try_into().unwrap(), seed)
}

/// Requests after the first one, which are for parts of the first one's content.
fn parts(log: &Log) -> usize {
    for request in &log.requests[1..] {
        let range = request.header("range").unwrap();
        let (_, last) = range
            .strip_prefix("bytes=")
            .unwrap()
            .split_once('-')
            .unwrap();
        assert!(!last.is_empty(), "{range}");
        assert_eq!(request.header("if-range"), Some("\"v1\""));
    }
    log.requests.len() - 1
}

#[test]
fn a_slow_connection_gets_company() {
    let expected = content(1);
    let (server, url) = serving("/disk.raw", slow(&expected));
    let import = Import::from_url(&url);
    assert_eq!(import.made(&expected).bytes_read, u64::from(LEN));
    let log = server.log();
    assert!(parts(&log) >= 4, "{:?}", log.requests);
    // What the first connection had on the way when it was left, and nothing else, came twice.
    assert!(log.sent < u64::from(LEN + LEN / 2), "{}", log.sent);
}

#[test]
fn a_part_that_breaks_is_fetched_again_on_its_own() {
    let expected = content(2);
    let page = slow(&expected)
        .fault(Fault::Nothing)
        .fault(Fault::Cut(100_000))
        .fault(Fault::Status(503))
        .fault(Fault::Nothing)
        .fault(Fault::HangUp);
    let (server, url) = serving("/disk.raw", page);
    Import::from_url(&url).made(&expected);
    let log = server.log();
    assert!(parts(&log) >= 4 + 3, "{:?}", log.requests);
    assert!(log.sent < u64::from(LEN + LEN / 2), "{}", log.sent);
}

#[test]
fn parts_of_another_state_of_the_content_are_never_joined() {
    let expected = content(3);
    let mut other = expected.clone();
    other[15_000_000] ^= 1;
    let page = slow(&expected)
        .fault(Fault::Nothing)
        .fault(Fault::Nothing)
        .fault(Fault::Become(Box::new(slow(&other).etag(Some("\"v2\"")))));
    let (_server, url) = serving("/disk.raw", page);
    Import::from_url(&url).changed();
}

#[test]
fn a_server_that_gives_no_parts_after_all_gives_a_stream() {
    let expected = content(4);
    for fault in [
        Fault::Become(Box::new(Page::of(expected.clone()).ranges(Ranges::None))),
        Fault::Become(Box::new(Page::of(expected.clone()).ranges(Ranges::Shifted))),
    ] {
        let page = slow(&expected).fault(Fault::Nothing).fault(fault);
        let (_server, url) = serving("/disk.raw", page);
        Import::from_url(&url).made(&expected);
    }
}

#[test]
fn servers_that_give_little_at_once_are_asked_more_often() {
    let expected = content(5);
    let page = slow(&expected)
        .fault(Fault::Nothing)
        .fault(Fault::Become(Box::new(
            Page::of(expected.clone()).ranges(Ranges::Capped(300_000)),
        )));
    let (server, url) = serving("/disk.raw", page);
    Import::from_url(&url).made(&expected);
    assert!(parts(&server.log()) >= 20);
}

#[test]
fn one_connection_stays_one() {
    let expected = content(6);
    let (server, url) = serving("/disk.raw", Page::of(expected.clone()).throttle(12_000_000));
    let options = SourceOptions {
        connections: 1,
        ..options()
    };
    Import::of(open(&url, &options).as_mut()).made(&expected);
    assert_eq!(server.log().requests.len(), 1);
}
