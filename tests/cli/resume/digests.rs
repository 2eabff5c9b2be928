//! Digests that go on, and what they prove of what was there before.

use longshore_tests::data::packed;
use longshore_tests::http::{Fault, Page, Ranges, Server};
use longshore_tests::program::{digest, have, said};

use super::{COST, Import, SLOW, disk, image, last_event, resumed};
use crate::rig::{MIB, Rig};

#[test]
fn a_digest_goes_on_where_it_was() {
    let bytes = disk(16 * MIB);
    for algorithm in ["md5", "sha1", "sha256", "sha512"] {
        let rig = Rig::quick();
        let sum = digest(algorithm, &bytes);
        let server = Server::start([("/disk", Page::of(bytes.clone()).throttle_all(SLOW))]);
        let import = Import::of(&rig, &server, "/disk").with(&["--checksum", &sum]);
        let mut kills = 0;
        while kills < 4 && import.killed() {
            kills += 1;
        }
        assert!(kills > 1, "{kills}");
        assert!(resumed(&import.makes(&bytes)) > 0);
        let (sent, most) = (server.log().sent, bytes.len() as u64 + kills * COST);
        assert!(
            sent <= most,
            "{algorithm}: {sent} bytes were sent, {most} at the most"
        );
    }
}

#[test]
fn a_digest_of_a_stream_that_is_read_again_is_that_of_all_of_it() {
    if !have("qemu-img") {
        return;
    }
    let bytes = disk(16 * MIB);
    let rig = Rig::quick();
    let packed = image(&bytes, "-O qcow2 -c");
    let plain = image(&bytes, "-O qcow2");
    for (content, ranges) in [
        (&plain, Ranges::Work),
        (&packed, Ranges::None),
        (&bytes, Ranges::None),
    ] {
        let sum = digest("sha256", content);
        let page = Page::of(content.clone()).ranges(ranges);
        let server = Server::start([("/disk", page.throttle_all(SLOW))]);
        let import = Import::of(&rig, &server, "/disk").with(&["--checksum", &sum]);
        assert!(import.killed_twice());
        assert!(resumed(&import.makes(&bytes)) > 0);
        std::fs::remove_file(rig.path("out.raw")).unwrap();
    }
}

#[test]
fn a_wrong_digest_leaves_nothing_however_often_it_was_gone_on_with() {
    let bytes = disk(12 * MIB);
    let rig = Rig::quick();
    let sum = format!("sha256:{:064}", 0);
    let server = Server::start([("/disk", Page::of(bytes).throttle_all(SLOW))]);
    let import = Import::of(&rig, &server, "/disk").with(&["--checksum", &sum]);
    assert!(import.killed() && import.killed());
    let output = import.ends(1);
    assert!(
        said(&output).contains("checksum mismatch"),
        "{}",
        said(&output)
    );
    assert_eq!(last_event(&output)["resumable"], false);
    assert_eq!(rig.names(), Vec::<String>::new());
}

/// A server that lies about the state of its content must not get bytes past the digest by having them
/// written in a run that does not live to see the end.
#[test]
fn bytes_of_a_run_that_was_cut_short_do_not_hide_behind_the_digest_of_others() {
    let good = disk(12 * MIB);
    for (name, ranges) in [
        ("/disk", Ranges::Work),
        ("/disk", Ranges::None),
        ("/disk.gz", Ranges::Work),
    ] {
        // Where the good disk is zeros, which are not written to files, this one is not.
        let evil: Vec<u8> = good.iter().map(|byte| byte | 1).collect();
        let rig = Rig::quick();
        let content = |bytes: &[u8]| {
            if !name.ends_with("gz") {
                return bytes.to_vec();
            }
            packed("gzip -1", bytes)
        };
        let (good_content, evil_content) = (content(&good), content(&evil));
        let sum = digest("sha256", &good_content);
        // Both are as long, so that only the digest tells them apart.
        let len = good_content.len().max(evil_content.len());
        let padded = |mut bytes: Vec<u8>| {
            if !name.ends_with("gz") {
                bytes.resize(len, 0);
            }
            bytes
        };
        let page = |bytes: Vec<u8>| Page::of(padded(bytes)).ranges(ranges);
        let cut = page(evil_content)
            .fault(Fault::Cut(6 << 20))
            .faults(&Fault::Status(403), 50);
        let server = Server::start([(name, cut)]);
        let import = Import::of(&rig, &server, name).with(&["--checksum", &sum]);
        import.ends(1);
        server.set(name, page(good_content));
        // It either notices, or has fetched again whatever it can't vouch for.
        let again = import.command().output().unwrap();
        if again.status.success() {
            import.made(&good);
        } else {
            assert_eq!(rig.names(), Vec::<String>::new(), "{}", said(&again));
            import.makes(&good);
        }
    }
}
