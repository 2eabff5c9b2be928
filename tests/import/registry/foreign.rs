//! Images as other tools write them: attestations beside them, layers that are made to be read in pieces,
//! layers that are elsewhere, and manifests of long ago.

use std::process::Command;

use longshore_tests::data::disk;
use longshore_tests::http::{Page, Server};
use longshore_tests::program::run;
use longshore_tests::registry::Registry;
use serde_json::{Value, json};

use super::image::{Images, Packing, Tar, layer_with};
use super::{fake, gives, have_all, insecure, name, refusal, shown};

#[test]
fn attestations_are_not_taken_for_images() {
    let expected = disk(100_000, 61);
    let mut images = Images::default();
    let image = images.image(&[(&layer_with(&expected), Packing::Gzip)], &json!({}));
    let statement = images.blob("application/vnd.in-toto+json", b"{}".to_vec());
    let config = images.blob("application/vnd.oci.image.config.v1+json", b"{}".to_vec());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [statement],
    });
    let mut attestation = images.document(&manifest);
    attestation["annotations"] = json!({
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    });
    // As buildkit has it, and as some that rewrite indexes leave it.
    let mut unknown = attestation.clone();
    unknown["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let mut ours = image.clone();
    ours["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let index = images.document(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [attestation, unknown, ours],
    }));
    images.tag("t", index);
    let (server, mut options) = fake(&images);
    options.registry.platform = Some("amd64".parse().unwrap());
    gives(&name(&server, "t"), &options, &expected);
    options.registry.platform = Some("s390x".parse().unwrap());
    refusal(&name(&server, "t"), &options).says("no image found in image index");
}

/// An image of one layer as it is stored, unpacked as `tar`.
fn stored(tar: &[u8], media_type: &str, bytes: Vec<u8>) -> Images {
    let mut images = Images::default();
    let mut manifest = images.manifest(&[(tar, Packing::Plain)], &json!({}));
    manifest["layers"][0] = images.blob(media_type, bytes);
    let root = images.document(&manifest);
    images.tag("t", root);
    images
}

#[test]
fn a_stargz_layer_is_a_tar_in_many_gzips() {
    let expected = disk(900_000, 62);
    let tar = Tar::default()
        .file(".no.prefetch.landmark", b"\x0f")
        .entry("disk/", b'5', "", &[])
        .file("disk/disk.img", &expected)
        .file("stargz.index.json", br#"{"version":1,"entries":[]}"#)
        .done();
    // Every header and every chunk of a file is a member of its own; the last one has no bytes.
    let mut packed = Vec::new();
    for chunk in tar.chunks(1 << 16) {
        packed.extend(Packing::Gzip.pack(chunk));
    }
    let extra = b"SG\x16\x00000000000000abcdSTARGZ";
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    footer.extend((u16::try_from(extra.len()).unwrap()).to_le_bytes());
    footer.extend(extra);
    footer.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    packed.extend(footer);
    let images = stored(&tar, &Packing::Gzip.media_type(), packed);
    let (server, options) = fake(&images);
    gives(&name(&server, "t"), &options, &expected);
}

#[test]
fn a_chunked_zstd_layer_has_frames_to_be_skipped() {
    let expected = disk(900_000, 63);
    let tar = layer_with(&expected);
    let mut packed = Vec::new();
    for chunk in tar.chunks(200_000) {
        packed.extend(Packing::Zstd.pack(chunk));
    }
    // The table of contents, and where that is: frames that decoders skip.
    for payload in [&[0x5a; 3000][..], &[0x4d; 64][..]] {
        packed.extend(0x184d_2a50_u32.to_le_bytes());
        packed.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        packed.extend(payload);
    }
    let images = stored(&tar, &Packing::Zstd.media_type(), packed);
    let (server, options) = fake(&images);
    gives(&name(&server, "t"), &options, &expected);
}

#[test]
fn what_skopeo_makes_of_an_image_as_chunked_zstd_is_read() {
    if !have_all() {
        return;
    }
    let expected = disk(3 << 20, 64);
    let layout = tempfile::tempdir().unwrap();
    Images::of_disk("t", &expected, Packing::Plain).write(layout.path());
    let registry = Registry::start();
    let name = registry.name("chunked:t");
    let chunked = ["--dest-compress-format", "zstd:chunked", "--format", "oci"];
    let from = format!("oci:{}:t", shown(layout.path()));
    registry.copy(&chunked, &from, "chunked:t");
    let manifest = run(Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(&name));
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
    assert!(kind.ends_with("+zstd"), "{manifest}");
    gives(&name, &insecure(&[registry.address()]), &expected);
}

#[test]
fn a_foreign_layer_is_read_where_the_registry_has_it_and_else_refused_by_name() {
    let expected = disk(100_000, 65);
    let tar = layer_with(&expected);
    let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let mut images = Images::default();
    let mut manifest = images.manifest(&[(&tar, Packing::Plain)], &json!({}));
    let mut layer = images.blob(kind, Packing::Gzip.pack(&tar));
    // Nobody is asked there, whatever is there.
    let elsewhere = Server::start([("/layer", Page::of(*b"bytes"))]);
    layer["urls"] = json!([elsewhere.url("/layer")]);
    manifest["layers"][0] = layer.clone();
    let root = images.document(&manifest);
    images.tag("t", root);
    let (server, options) = fake(&images);
    gives(&name(&server, "t"), &options, &expected);
    let blob = format!("/v2/r/blobs/{}", layer["digest"].as_str().unwrap());
    server.set(&blob, Page::status(404));
    let refused = refusal(&name(&server, "t"), &options).says("the foreign layer sha256:");
    refused.says("--allow-nondistributable-artifacts");
    assert!(elsewhere.log().requests.is_empty());
}

#[test]
fn a_manifest_of_schema_1_is_refused_by_name() {
    let old = json!({
        "schemaVersion": 1,
        "name": "r",
        "tag": "t",
        "architecture": "amd64",
        "fsLayers": [{ "blobSum": format!("sha256:{}", "a".repeat(64)) }],
        "history": [{ "v1Compatibility": "{}" }],
        "signatures": [],
    });
    let (server, options) = fake(&Images::of_disk("t", b"x", Packing::Plain));
    for kind in ["v1+prettyjws", "v1+json"] {
        let kind = format!("application/vnd.docker.distribution.manifest.{kind}");
        let page = Page::of(old.to_string().into_bytes()).header("Content-Type", &kind);
        server.set("/v2/r/manifests/t", page);
        let refused = refusal(&name(&server, "t"), &options).says("Docker's schema 1");
        assert_eq!(refused.exit_code, 3);
    }
}

/// A record of pax in front of an entry, as buildkit writes them.
fn pax(record: &str) -> Vec<u8> {
    let length = record.len() + 4;
    format!("{length:02} {record}\n").into_bytes()
}

#[test]
fn a_containerdisk_as_upstream_describes_it_is_read_and_can_be_taken_away() {
    let expected = disk(300_000, 66);
    // ADD --chown=107:107 fedora.qcow2 /disk/
    let record = pax("mtime=1700000000.123456789");
    let layer = Tar::default()
        .entry("disk/", b'5', "", &[])
        .entry("PaxHeaders.0/fedora.img", b'x', "", &record)
        .owned(107)
        .file("disk/fedora.img", &expected)
        .done();
    let gone = Tar::default().file("disk/.wh.fedora.img", b"").done();
    let other = Tar::default()
        .file("disk/.wh.fedora.img", b"")
        .file("disk/other.img", &expected[..70_000])
        .done();
    let image = |layers: &[&Vec<u8>]| {
        let mut images = Images::default();
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| (layer.as_slice(), Packing::Gzip))
            .collect();
        let image = images.image(&layers, &json!({}));
        images.tag("t", image);
        fake(&images)
    };
    let (server, options) = image(&[&layer]);
    gives(&name(&server, "t"), &options, &expected);
    let (server, options) = image(&[&layer, &gone]);
    refusal(&name(&server, "t"), &options)
        .says("Failed to find VM disk image file in the container image");
    let (server, options) = image(&[&layer, &other]);
    gives(&name(&server, "t"), &options, &expected[..70_000]);
    let (server, options) = image(&[&layer, &gone, &layer]);
    gives(&name(&server, "t"), &options, &expected);
}
