//! Servers that work, each in its own way.

use std::io::Read;

use longshore_importer::{Error, HttpError, SourceOptions, parse_header};
use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Length, Page, Ranges};
use longshore_tests::program::free_address;
use longshore_transfer::{Cancel, Options};

use super::{Import, chain, of_io, open, options, read_all, refused, serving};

#[test]
fn an_import_is_one_get_for_unencoded_bytes() {
    let expected = disk(3_000_001, 1);
    let (server, url) = serving("/disk.raw", Page::of(expected.clone()).no_head());
    Import::from_url(&url).made(&expected);
    let requests = server.log().requests;
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].method, "GET");
    assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
    let agent = requests[0].header("user-agent").unwrap();
    assert!(
        agent.starts_with("cdi-golang-importer longshore/"),
        "{agent}"
    );
}

#[test]
fn every_kind_of_server_gives_the_same_disk() {
    let expected = disk(1_500_000, 2);
    let all_ranges = [
        Ranges::Work,
        Ranges::None,
        Ranges::AnnouncedOnly,
        Ranges::NotFromZero,
        Ranges::Capped(400_000),
        Ranges::Nameless,
        Ranges::Shifted,
    ];
    for ranges in all_ranges {
        for length in [Length::Known, Length::Chunked, Length::UntilClose] {
            for named in [true, false] {
                let page = Page::of(expected.clone()).ranges(ranges).length(length);
                let page = page.etag(named.then_some("\"v1\""));
                let (_server, url) = serving("/disk.raw", page);
                let mut source = open(&url, &options());
                let ranged = ranges != Ranges::None && ranges != Ranges::AnnouncedOnly;
                let first_is_whole = !ranged || ranges == Ranges::NotFromZero;
                if first_is_whole && length != Length::Known {
                    assert_eq!(source.len(), None, "{ranges:?} {length:?}");
                } else {
                    assert_eq!(source.len(), Some(1_500_000), "{ranges:?} {length:?}");
                }
                println!("{ranges:?} {length:?} {named}");
                Import::of(source.as_mut()).made(&expected);
            }
        }
    }
}

#[test]
fn an_empty_file_has_no_bytes_although_its_range_is_refused() {
    for ranges in [Ranges::Work, Ranges::None] {
        let (server, url) = serving("/empty", Page::of([]).ranges(ranges));
        let mut source = open(&url, &options());
        assert_eq!(source.len(), Some(0));
        assert_eq!(read_all(source.as_mut()).unwrap(), b"");
        let requests = server.log().requests;
        let expected = if ranges == Ranges::Work { 2 } else { 1 };
        assert_eq!(requests.len(), expected, "{requests:?}");
    }
}

#[test]
fn a_source_can_be_read_again_and_gives_the_same() {
    let expected = disk(700_000, 3);
    for (etag, length) in [
        (Some("\"v1\""), Length::Known),
        (None, Length::Known),
        (None, Length::Chunked),
    ] {
        let page = Page::of(expected.clone()).etag(etag).length(length);
        let (_server, url) = serving("/disk.raw", page.ranges(Ranges::None));
        let mut source = open(&url, &options());
        assert!(source.reopenable());
        assert!(read_all(source.as_mut()).unwrap() == expected);
        assert!(read_all(source.as_mut()).unwrap() == expected);
    }
}

#[test]
fn what_changed_between_two_passes_is_refused() {
    let old = disk(700_000, 4);
    // The same but for one byte near the end: only a tag or a digest can tell.
    let mut new = old.clone();
    new[699_000] ^= 1;
    let modified = "Sat, 21 Nov 2026 10:00:00 GMT";
    let later = "Sat, 21 Nov 2026 10:00:01 GMT";
    let pairs = [
        (
            Page::of(old.clone()),
            Page::of(new.clone()).etag(Some("\"v2\"")),
        ),
        (
            Page::of(old.clone()).etag(None).last_modified(modified),
            Page::of(new.clone()).etag(None).last_modified(later),
        ),
        (
            Page::of(old.clone()).etag(None),
            Page::of(new.clone()).etag(None),
        ),
        (
            Page::of(old.clone()).etag(Some("W/\"v1\"")),
            Page::of(new.clone()).etag(Some("W/\"v1\"")),
        ),
        (
            Page::of(old.clone()).etag(None).length(Length::Chunked),
            Page::of(disk(600_000, 4))
                .etag(None)
                .length(Length::Chunked),
        ),
    ];
    for (before, after) in pairs {
        let (server, url) = serving("/disk.raw", before);
        let mut source = open(&url, &options());
        assert!(read_all(source.as_mut()).unwrap() == old);
        server.set("/disk.raw", after);
        let error = read_all(source.as_mut()).unwrap_err();
        let error = of_io(&error);
        assert!(matches!(error, HttpError::Changed { .. }), "{error}");
        assert_eq!(error.reason(), "SourceChanged");
    }
}

#[test]
fn statuses_that_stay_are_final_and_say_what_to_do() {
    for (status, reason) in [
        (401, "Unauthorized"),
        (403, "Unauthorized"),
        (404, "NotFound"),
        (410, "NotFound"),
        (400, "BadStatus"),
        (501, "BadStatus"),
    ] {
        let (server, url) = serving("/disk.raw", Page::status(status));
        let error = refused(&url, &options());
        assert_eq!((error.status(), error.reason()), (Some(status), reason));
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(server.log().requests.len(), 1);
    }
}

#[test]
fn a_name_shows_neither_user_nor_query_and_errors_neither() {
    let (_server, url) = serving("/disk.raw", Page::of(disk(1000, 1)));
    let secret = url.replace("http://", "http://jane:s3cret@") + "?sig=s3cret#s3cret";
    assert_eq!(open(&secret, &options()).name(), url);
    let (_server, url) = serving("/disk.raw", Page::status(404));
    let secret = url.replace("http://", "http://jane:s3cret@") + "?sig=s3cret";
    let error = longshore_importer::source_from(&secret, &options()).err();
    let error = error.unwrap();
    let text = format!("{} {error:?}", chain(&error));
    assert!(text.contains(&url) && !text.contains("s3cret"), "{text}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let address = free_address();
    let error = refused(&format!("http://{address}/x"), &options());
    let HttpError::GaveUp {
        attempts, source, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*attempts, 5);
    assert!(matches!(**source, HttpError::Connect { .. }), "{source}");
    assert!(chain(&error).contains(&address.to_string()));
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
}

#[test]
fn an_encoding_nobody_asked_for_is_refused_unless_the_file_is_stored_so() {
    let page = |body: Vec<u8>| Page::of(body).header("Content-Encoding", "gzip");
    let (server, url) = serving("/disk.raw", page(disk(1000, 1)));
    let error = refused(&url, &options());
    assert!(matches!(error, HttpError::Encoding { .. }), "{error}");
    assert_eq!(server.log().requests.len(), 1);
    // A gzip file of one stored block.
    let mut gz = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\x05\0\xfa\xffhello".to_vec();
    gz.extend(0x3610_a686_u32.to_le_bytes());
    gz.extend(5u32.to_le_bytes());
    let (_server, url) = serving("/disk.raw.gz", page(gz.clone()));
    assert_eq!(read_all(open(&url, &options()).as_mut()).unwrap(), gz);
}

#[test]
fn a_checksum_is_that_of_the_bytes_that_came() {
    let expected = disk(500_000, 5);
    let run = |checksum: &str| {
        let page = Page::of(expected.clone()).fault(Fault::Cut(1000));
        let (_server, url) = serving("/disk.raw", page);
        let wanted = Options {
            checksum: Some(checksum.parse().unwrap()),
            ..Options::default()
        };
        Import::with(open(&url, &options()).as_mut(), &wanted, &Cancel::default())
    };
    let wrong = run(&format!("sha256:{}", "0".repeat(64)));
    let Err(longshore_transfer::Error::Checksum { computed, .. }) = &wrong.outcome else {
        panic!("{:?}", wrong.outcome);
    };
    assert!(!wrong.target().exists());
    run(&format!("sha256:{computed}")).made(&expected);
}

#[test]
fn a_reader_that_goes_away_closes_the_connection() {
    let page = Page::of(disk(8_000_000, 6)).fault(Fault::Stall(1_000_000));
    let (server, url) = serving("/disk.raw", page);
    let mut source = open(&url, &options());
    let mut stream = source.stream().unwrap();
    let mut some = vec![0; 10_000];
    stream.read_exact(&mut some).unwrap();
    assert_eq!(server.log().gone, 0);
    drop(stream);
    server.wait_until(|log| log.gone == 1);
    // A source that nobody read lets go as well.
    server.set("/disk.raw", Page::of(disk(1000, 6)).fault(Fault::Stall(10)));
    drop(open(&url, &options()));
    server.wait_until(|log| log.gone == 2);
}

#[test]
fn a_slow_reader_bounds_what_is_under_way() {
    // Far more than what lies between, and than socket buffers.
    let len = 64_000_000;
    let (server, url) = serving("/disk.raw", Page::of(vec![7; len]));
    let mut source = open(&url, &options());
    let mut stream = source.stream().unwrap();
    let mut left = len;
    let mut buf = vec![0; 1_000_000];
    while left > 0 {
        stream.read_exact(&mut buf).unwrap();
        left -= buf.len();
        let sent = usize::try_from(server.log().sent).unwrap();
        let ahead = sent.saturating_sub(len - left);
        assert!(ahead < 24_000_000, "{ahead} bytes under way");
    }
}

#[test]
fn other_schemes_are_refused_by_name() {
    for (spec, scheme) in [("FTP://host/file", "ftp"), ("azblob://box/file", "azblob")] {
        match longshore_importer::source_from(spec, &options()) {
            Err(Error::NotYet { scheme: found }) => assert_eq!(found, scheme),
            other => panic!("{spec}: {other:?}", other = other.map(|s| s.name())),
        }
    }
}

#[test]
fn files_are_sources_whatever_their_name() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["plain.raw", "a:b.raw", "with space"] {
        let path = directory.path().join(name);
        std::fs::write(&path, b"content").unwrap();
        let mut source = open(path.to_str().unwrap(), &options());
        assert!(source.prefers_random());
        assert_eq!(read_all(source.as_mut()).unwrap(), b"content");
    }
    let missing = directory.path().join("missing");
    let error = longshore_importer::source_from(missing.to_str().unwrap(), &options()).err();
    assert!(matches!(error, Some(Error::Local(_))), "{error:?}");
}

#[test]
fn extra_headers_are_sent_with_every_request() {
    let expected = disk(300_000, 7);
    let page = Page::of(expected.clone()).fault(Fault::Cut(1000));
    let (server, url) = serving("/disk.raw", page);
    let with_headers = SourceOptions {
        headers: vec![
            parse_header("X-Token: one two").unwrap(),
            parse_header("User-Agent: mine").unwrap(),
        ],
        ..options()
    };
    Import::of(open(&url, &with_headers).as_mut()).made(&expected);
    let requests = server.log().requests;
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.header("x-token"), Some("one two"));
        assert_eq!(request.header("user-agent"), Some("mine"));
    }
}
