//! When an import goes on, and when it starts over.

use std::process::Stdio;

use longshore_tests::data::{self, packed};
use longshore_tests::eventually;
use longshore_tests::http::{Fault, Page, Server};
use longshore_tests::program::{said, signal, silent};

use super::{DOSE, Import, SLOW, disk, last_event, resumed};
use crate::rig::{MIB, Rig};

/// A rig in which an import of `/disk` was killed.
fn begun(page: Page) -> (Rig, Server) {
    let rig = Rig::quick();
    let server = Server::start([("/disk", page.throttle_all(SLOW))]);
    assert!(Import::of(&rig, &server, "/disk").killed());
    (rig, server)
}

#[test]
fn whatever_differs_is_named_and_the_import_starts_over() {
    let old = disk(12 * MIB);
    let new = data::disk(12 * MIB, 12);
    let longer = disk(13 * MIB);
    let page = |bytes: &[u8]| Page::of(bytes.to_vec());
    for (next, path, words, expected, says) in [
        (page(&old), "/disk", &[][..], &old, None),
        (
            page(&new).etag(Some("\"v2\"")),
            "/disk",
            &[],
            &new,
            Some("the state of the source was ETag \"v1\" and is ETag \"v2\""),
        ),
        (
            page(&longer),
            "/disk",
            &[],
            &longer,
            Some("the length of the source was 12582912 and is 13631488"),
        ),
        (
            page(&new),
            "/other",
            &[],
            &new,
            Some("the source was http://"),
        ),
        (
            page(&old),
            "/disk?id=2",
            &[],
            &old,
            Some("the source was http://"),
        ),
        (
            page(&old),
            "/disk",
            &["--from", "raw"],
            &old,
            Some("the format asked for was unknown and is raw"),
        ),
        // What comes after the image's last byte is not written down.
        (page(&old), "/disk", &["--size", "12582912"], &old, None),
        (
            page(&old),
            "/disk",
            &["--preallocate", "falloc"],
            &old,
            Some("the preallocation was Off and is Falloc"),
        ),
    ] {
        let (rig, server) = begun(page(&old));
        server.set("/disk", next.clone());
        server.set("/other", next);
        let import = Import::of(&rig, &server, path).with(words);
        let output = import.ends(0);
        import.made(expected);
        let said = said(&output);
        match says {
            None => assert!(resumed(&last_event(&output)) > 0, "{said}"),
            Some(says) => {
                assert!(said.contains(says), "{says}: {said}");
                assert!(said.contains("starts over"), "{said}");
                assert_eq!(resumed(&last_event(&output)), 0);
            }
        }
    }
}

#[test]
fn a_source_that_has_no_name_for_its_state_starts_over() {
    let bytes = disk(8 * MIB);
    let rig = Rig::quick();
    let page = Page::of(bytes.clone())
        .etag(None)
        .fault(Fault::Stall(6 << 20));
    let server = Server::start([("/disk", page)]);
    let import = Import::of(&rig, &server, "/disk");
    let mut child = silent(&mut import.command());
    server.wait_until(|log| log.sent >= 6 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(import.journal().is_empty());
    assert_eq!(resumed(&import.makes(&bytes)), 0);
}

#[test]
fn a_journal_that_is_cut_or_garbage_is_never_worse_than_none() {
    let bytes = disk(12 * MIB);
    let (rig, server) = begun(Page::of(bytes.clone()));
    let import = Import::of(&rig, &server, "/disk");
    server.set("/disk", Page::of(bytes.clone()));
    let (journal, partial) = (import.journal(), rig.read(".out.raw.partial"));
    let path = rig.path(".out.raw.longshore-journal");
    let mut flipped = journal.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut longer = journal.clone();
    longer.extend([0xff; 4096]);
    let cuts = [0, 1, 8, 20, middle, journal.len() - 1].map(|len| journal[..len].to_vec());
    for (n, journal) in cuts
        .into_iter()
        .chain([flipped, longer, vec![0; 4096], b"{}".to_vec(), journal])
        .enumerate()
    {
        // The partial file is another one each time; its journal says so, or does not get that far.
        rig.write(".out.raw.partial", &partial);
        std::fs::write(&path, &journal).unwrap();
        let output = import.ends(0);
        import.made(&bytes);
        assert_eq!(resumed(&last_event(&output)), 0, "{n}: {}", said(&output));
    }
}

#[test]
fn a_torn_tail_costs_what_it_told_of() {
    let bytes = disk(12 * MIB);
    let (rig, server) = begun(Page::of(bytes.clone()));
    let import = Import::of(&rig, &server, "/disk");
    assert!(import.killed());
    let path = rig.path(".out.raw.longshore-journal");
    let mut journal = import.journal();
    journal.truncate(journal.len() - 1);
    journal.extend([0; 4096]);
    // The same file still: only what is in it changes.
    std::fs::write(&path, &journal).unwrap();
    let event = import.makes(&bytes);
    assert!(resumed(&event) > 0, "{event}");
}

#[test]
fn a_partial_file_that_was_put_there_since_is_not_believed() {
    let bytes = disk(12 * MIB);
    let (rig, server) = begun(Page::of(bytes.clone()));
    let import = Import::of(&rig, &server, "/disk");
    let len = rig.read(".out.raw.partial").len();
    std::fs::remove_file(rig.path(".out.raw.partial")).unwrap();
    rig.write(".out.raw.partial", &vec![0xee; len]);
    let output = import.ends(0);
    import.made(&bytes);
    assert!(
        said(&output).contains("the target was inode"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_copy_without_a_journal_ends_what_there_was_of_one() {
    let bytes = disk(12 * MIB);
    let other = data::disk(12 * MIB, 12);
    let (rig, server) = begun(Page::of(bytes.clone()));
    rig.write("other.raw", &other);
    // It is killed too, and leaves its bytes in the same partial file.
    let mut copy = rig.command(&["convert", "-", "out.raw"]);
    let mut child = silent(copy.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &other[..8 * MIB]).unwrap();
    eventually("bytes of the other disk", || {
        (rig.read(".out.raw.partial").get(MIB..MIB + 4096) == Some(&other[MIB..MIB + 4096]))
            .then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let event = Import::of(&rig, &server, "/disk").makes(&bytes);
    assert_eq!(resumed(&event), 0, "{event}");
}

#[test]
fn a_signal_keeps_what_is_done_and_says_how_to_go_on() {
    let bytes = disk(8 * MIB);
    let rig = Rig::quick();
    let page = Page::of(bytes.clone()).throttle_all(SLOW);
    let server = Server::start([("/disk", page)]);
    let import = Import::of(&rig, &server, "/disk");
    import.doles(DOSE);
    let mut child = import
        .command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(import.steps(&mut child));
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    import.doles(u64::MAX);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("next: run the same command again"),
        "{}",
        said(&output)
    );
    let event = last_event(&output);
    assert_eq!(
        (&event["event"], &event["resumable"]),
        (&"error".into(), &true.into())
    );
    assert!(resumed(&import.makes(&bytes)) > 0);
    // And where nobody wants that, nothing is kept.
    server.set("/disk", Page::of(bytes).fault(Fault::Stall(6 << 20)));
    std::fs::remove_file(rig.path("out.raw")).unwrap();
    let child = import.with(&["--no-resume"]);
    let child = silent(&mut child.command());
    eventually("the partial file", || {
        rig.path(".out.raw.partial").exists().then_some(())
    });
    signal(&child, "TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    assert_eq!(rig.names(), Vec::<String>::new());
}

#[test]
fn a_server_that_fails_is_gone_on_with_and_one_that_changes_is_not() {
    let bytes = disk(8 * MIB);
    let new = data::disk(8 * MIB, 12);
    let changed = Page::of(new.clone()).etag(Some("\"v2\""));
    let cut = Page::of(bytes.clone()).fault(Fault::Cut(6 << 20));
    let rig = Rig::quick();
    let server = Server::start([("/disk", cut.clone().faults(&Fault::Status(403), 50))]);
    let import = Import::of(&rig, &server, "/disk");
    let event = last_event(&import.ends(1));
    assert_eq!(event["resumable"], true, "{event}");
    server.set("/disk", Page::of(bytes.clone()));
    assert!(resumed(&import.makes(&bytes)) >= MIB as u64);
    std::fs::remove_file(rig.path("out.raw")).unwrap();
    server.set("/disk", cut.fault(Fault::Become(Box::new(changed))));
    let event = last_event(&import.ends(1));
    assert_eq!(event["resumable"], false, "{event}");
    assert_eq!(rig.names(), Vec::<String>::new());
    assert_eq!(resumed(&import.makes(&new)), 0);
}

#[test]
fn an_image_that_is_refused_leaves_nothing() {
    let rig = Rig::quick();
    // A gzip whose last bytes say that it is another.
    let mut bytes = packed("gzip -1", &disk(8 * MIB));
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    let server = Server::start([("/disk.gz", Page::of(bytes))]);
    let import = Import::of(&rig, &server, "/disk.gz");
    let event = last_event(&import.ends(3));
    assert_eq!(event["resumable"], false, "{event}");
    assert_eq!(rig.names(), Vec::<String>::new());
}

#[test]
fn a_partial_file_that_somebody_cut_is_not_believed() {
    let bytes = disk(12 * MIB);
    let (rig, server) = begun(Page::of(bytes.clone()));
    let import = Import::of(&rig, &server, "/disk");
    let mut cut = std::fs::File::options();
    let partial = cut.write(true).open(rig.path(".out.raw.partial")).unwrap();
    partial.set_len(4096).unwrap();
    let output = import.ends(0);
    import.made(&bytes);
    assert!(
        said(&output).contains("the partial file is shorter than it says"),
        "{}",
        said(&output)
    );
}

/// The one that is at work is not disturbed, and killed later it is gone on with.
#[test]
fn of_two_imports_to_one_target_the_second_is_refused() {
    let bytes = disk(12 * MIB);
    let rig = Rig::quick();
    let page = Page::of(bytes.clone()).throttle_all(SLOW);
    let server = Server::start([("/disk", page)]);
    let import = Import::of(&rig, &server, "/disk");
    import.doles(DOSE);
    let first = import.command().stdout(Stdio::null()).spawn();
    let mut first = first.unwrap();
    assert!(import.steps(&mut first));
    for words in [&[][..], &["--no-resume"]] {
        let second = Import::of(&rig, &server, "/disk").with(words);
        let mut command = second.command();
        if words == ["--no-resume"] {
            // It goes without the journal's other options.
            command = rig.command(&["import", "--no-resume", &second.url, "out.raw"]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("in use"), "{}", said(&output));
        assert!(!import.journal().is_empty());
    }
    first.kill().unwrap();
    first.wait().unwrap();
    import.doles(u64::MAX);
    let event = import.makes(&bytes);
    assert!(resumed(&event) > 0, "{event}");
}

#[test]
fn what_is_read_again_is_said() {
    let bytes = disk(12 * MIB);
    let rig = Rig::quick();
    let packed = packed("gzip -1", &bytes);
    for (name, page, again) in [
        ("/disk.gz", Page::of(packed), true),
        ("/disk", Page::of(bytes.clone()), false),
    ] {
        let server = Server::start([(name, page.throttle_all(SLOW))]);
        let import = Import::of(&rig, &server, name);
        assert!(import.killed_twice());
        let output = import.ends(0);
        import.made(&bytes);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("\"rereads\":{again}")), "{text}");
        assert!(import.killed_twice());
        let url = server.url(name);
        let output = rig.ends(&["import", "--journal-step", "1Mi", &url, "out.raw"], 0);
        let says = if again {
            "the source is read again from its start"
        } else {
            "what is there is not read again"
        };
        assert!(said(&output).contains(says), "{}", said(&output));
        std::fs::remove_file(rig.path("out.raw")).unwrap();
    }
}
