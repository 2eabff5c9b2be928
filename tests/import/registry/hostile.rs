//! Images and registries that nobody made by mistake.

use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Length, Page, Ranges};
use serde_json::{Value, json};

use super::image::{EVERY_PACKING, Images, Packing, Tar, digest, layer_with};
use super::{fake, gives, name, refusal};

#[test]
fn cut_connections_are_resumed_and_the_digest_is_right() {
    let expected = disk(6 << 20, 1);
    for packing in EVERY_PACKING {
        let images = Images::of_disk("t", &expected, packing);
        let (server, options) = fake(&images);
        let layer = images.top_layer("t");
        let page = Page::of(images.bytes(&layer).to_vec());
        let page = page.fault(Fault::Cut(200_000)).fault(Fault::Status(503));
        let page = page.faults(&Fault::Cut(700_000), 4).fault(Fault::HangUp);
        server.set(&format!("/v2/r/blobs/{layer}"), page);
        gives(&name(&server, "t"), &options, &expected);
        let ranged = |r: &&longshore_tests::http::Request| {
            r.header("range").is_some_and(|range| range != "bytes=0-")
        };
        let log = server.log();
        assert!(log.requests.iter().filter(ranged).count() >= 4, "{log:?}");
    }
}

#[test]
fn a_layer_with_other_bytes_leaves_no_disk() {
    for packing in EVERY_PACKING {
        // What is behind the disk in the layer, and even behind the tar's end, is in the digest too.
        let mut tar = layer_with(&disk(1 << 20, 2));
        tar.extend([0; 8192]);
        let mut images = Images::default();
        let image = images.image(&[(&tar, packing)], &json!({}));
        images.tag("t", image);
        let layer = images.top_layer("t");
        let len = images.bytes(&layer).len();
        for at in [600, len / 2, len - 1] {
            let (server, options) = fake(&images);
            let mut bytes = images.bytes(&layer).to_vec();
            bytes[at] ^= 0x10;
            server.set(&format!("/v2/r/blobs/{layer}"), Page::of(bytes));
            refusal(&name(&server, "t"), &options);
        }
    }
    // Plain tars are right whatever follows them: only the digest tells.
    let mut images = Images::default();
    let mut tar = layer_with(&disk(300_000, 3));
    tar.extend([0; 8192]);
    let image = images.image(&[(&tar, Packing::Plain)], &json!({}));
    images.tag("t", image);
    let (server, options) = fake(&images);
    *tar.last_mut().unwrap() = 1;
    server.set(
        &format!("/v2/r/blobs/{}", images.top_layer("t")),
        Page::of(tar),
    );
    let refused = refusal(&name(&server, "t"), &options).says("checksum mismatch");
    assert_eq!(refused.exit_code, 1);
}

#[test]
fn upper_layers_are_checked_though_they_have_no_disk() {
    let mut images = Images::default();
    let lower = layer_with(&disk(100_000, 4));
    let upper = Tar::default().file("etc/x", &disk(200_000, 5)).done();
    let image = images.image(
        &[(&lower, Packing::Gzip), (&upper, Packing::Plain)],
        &json!({}),
    );
    images.tag("t", image);
    let (server, options) = fake(&images);
    let mut other = upper.clone();
    let at = other.len() - 100_000;
    other[at] ^= 1;
    server.set(
        &format!("/v2/r/blobs/{}", images.top_layer("t")),
        Page::of(other),
    );
    refusal(&name(&server, "t"), &options).says("checksum mismatch");
}

#[test]
fn layers_of_another_length_are_refused() {
    let images = Images::of_disk("t", &disk(200_000, 6), Packing::Plain);
    let layer = images.top_layer("t");
    let path = format!("/v2/r/blobs/{layer}");
    let bytes = images.bytes(&layer).to_vec();
    let mut longer = bytes.clone();
    longer.resize(bytes.len() + 1_000_000, 0);
    for (bytes, says) in [
        (longer, "goes on"),
        (bytes[..100_352].to_vec(), "ends before"),
    ] {
        let (server, options) = fake(&images);
        server.set(&path, Page::of(bytes.clone()));
        refusal(&name(&server, "t"), &options).says("by its manifest");
        // Without a length it only shows on the way.
        server.set(
            &path,
            Page::of(bytes).length(Length::Chunked).ranges(Ranges::None),
        );
        refusal(&name(&server, "t"), &options).says(says);
    }
}

/// A fake registry whose manifest is this.
fn with_manifest(
    change: impl FnOnce(&mut Value),
) -> (
    longshore_tests::http::Server,
    longshore_importer::SourceOptions,
) {
    let mut images = Images::default();
    let layer = layer_with(b"x");
    let mut manifest = images.manifest(&[(&layer, Packing::Plain)], &json!({}));
    change(&mut manifest);
    let root = images.document(&manifest);
    images.tag("t", root);
    fake(&images)
}

#[test]
fn manifests_that_lie_are_refused() {
    type Lie = Box<dyn Fn(&mut Value)>;
    let many: Vec<Value> = (0..10_000)
        .map(
            |n| json!({ "mediaType": "x", "digest": digest(format!("{n}").as_bytes()), "size": 1 }),
        )
        .collect();
    let lies: Vec<(&str, Lie)> = vec![
        (
            "more than 512",
            Box::new(move |m| m["layers"] = many.clone().into()),
        ),
        (
            "malformed",
            Box::new(|m| m["layers"][0]["size"] = (-1).into()),
        ),
        (
            "by its manifest",
            Box::new(|m| m["layers"][0]["size"] = u64::MAX.into()),
        ),
        (
            "malformed",
            Box::new(|m| m["layers"][0]["digest"] = "sha256:../../../etc/passwd".into()),
        ),
        (
            "404",
            Box::new(|m| m["layers"][0]["digest"] = digest(b"nothing").into()),
        ),
        (
            "announced",
            Box::new(|m| m["config"]["size"] = (1_u64 << 40).into()),
        ),
        ("announced", Box::new(|m| m["config"]["size"] = 1.into())),
        (
            "encrypted",
            Box::new(|m| {
                m["layers"][0]["mediaType"] =
                    "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
            }),
        ),
        ("same time", Box::new(|m| m["manifests"] = json!([]))),
        ("schema 1", Box::new(|m| m["schemaVersion"] = 1.into())),
        ("neither", Box::new(|m| *m = json!({ "schemaVersion": 2 }))),
        ("malformed", Box::new(|m| *m = json!([]))),
        (
            "it has none",
            Box::new(|m| *m = json!({ "schemaVersion": 2, "manifests": [] })),
        ),
    ];
    for (says, lie) in lies {
        let (server, options) = with_manifest(lie);
        refusal(&name(&server, "t"), &options).says(says);
    }
}

#[test]
fn texts_are_what_their_digests_say_and_of_bounded_size() {
    let images = Images::of_disk("t", b"x", Packing::Plain);
    let (server, options) = fake(&images);
    let path = "/v2/r/manifests/t";
    let named = |page: Page| page.header("Docker-Content-Digest", &digest(b"other"));
    server.set(path, named(Page::of(*b"{}")));
    refusal(&name(&server, "t"), &options).says("is not what its digest says");
    let by_digest = format!("docker://{}/r@{}", server.address(), digest(b"other"));
    server.set(
        &format!("/v2/r/manifests/{}", digest(b"other")),
        Page::of(*b"{}"),
    );
    let refused = refusal(&by_digest, &options).says("is not what its digest says");
    assert_eq!(refused.at_once.unwrap().reason(), "ChecksumMismatch");
    for length in [Length::Known, Length::Chunked, Length::UntilClose] {
        server.set(path, Page::of(vec![b' '; 9 << 20]).length(length));
        refusal(&name(&server, "t"), &options).says("goes on");
    }
    server.set(path, Page::of(*b"{}").fault(Fault::Garbage));
    let (server, options) = with_manifest(|m| m["config"]["digest"] = digest(b"lost").into());
    refusal(&name(&server, "t"), &options).says("404");
}

#[test]
fn layers_that_are_no_tars_or_lead_astray_are_refused() {
    let endless_name = {
        let mut tar = Tar::default();
        tar.header("././@LongLink", b'L', "", 1 << 32);
        tar.cut()
    };
    let file = |path: &str| Tar::default().file(path, b"x").done();
    let link = |kind: u8| {
        Tar::default()
            .entry("disk/a", kind, "/etc/passwd", &[])
            .done()
    };
    let mut truncated = Tar::default();
    truncated.header("disk/a", b'0', "", 1 << 20);
    for (layer, says) in [
        (b"this is no tar".repeat(1000), "no whole tar"),
        (endless_name, "a name or its like"),
        (file("disk/../../etc/passwd"), "leads out"),
        (file("../disk/a"), "leads out"),
        (link(b'2'), "link"),
        (link(b'1'), "link"),
        (link(b'4'), "no file"),
        (link(b'S'), "sparse"),
        (truncated.cut(), "truncated"),
    ] {
        for packing in EVERY_PACKING {
            let mut images = Images::default();
            let upper = Tar::default().file("x", b"y").done();
            let image = images.image(&[(&layer, packing), (&upper, Packing::Gzip)], &json!({}));
            images.tag("t", image);
            let image = images.image(&[(&upper, Packing::Gzip), (&layer, packing)], &json!({}));
            images.tag("top", image);
            let (server, options) = fake(&images);
            refusal(&name(&server, "t"), &options).says(says);
            refusal(&name(&server, "top"), &options).says(says);
        }
    }
}
