//! How much memory an import of an image takes, measured by the kernel.

use std::process::Command;

use longshore_tests::data::disk;
use longshore_tests::program::{have, program, said};
use serde_json::json;

use super::image::{Images, Packing, Tar, layer_with};
use super::{fake, name, shown};

/// Runs `longshore import SPEC` within `limit` MiB of memory, and gives its peak in MiB.
fn peak(spec: &str, host: &str, succeeds: bool) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("peak");
    let output = Command::new("time")
        .args(["--quiet", "--format", "%M", "--output", shown(&report)])
        .arg(program())
        .args(["import", "--insecure-registry", host, spec])
        .arg(directory.path().join("disk.raw"))
        .output()
        .unwrap();
    assert_eq!(output.status.success(), succeeds, "{}", said(&output));
    let text = std::fs::read_to_string(&report).unwrap();
    let kib: u64 = text.lines().last().unwrap().trim().parse().unwrap();
    kib / 1024
}

#[test]
fn one_budget_holds_for_images_of_every_kind() {
    if !have("time") || !have("gzip") || !have("zstd") {
        return;
    }
    // More than fits: stored as it is, and unpacked to that.
    let noise = layer_with(&disk(136 << 20, 2));
    let mut sparse = disk(4 << 20, 3);
    sparse.resize(200 << 20, 0);
    let sparse = layer_with(&sparse);
    let mut upper = Tar::default().file("usr/x", &vec![0; 200 << 20]);
    upper = upper.file("usr/y", &disk(1 << 20, 4));
    let upper = upper.done();
    for (layer, packing) in [
        (&noise, Packing::Plain),
        (&sparse, Packing::Gzip),
        (&sparse, Packing::Zstd),
    ] {
        let mut images = Images::default();
        let above = if packing == Packing::Plain {
            Packing::Gzip
        } else {
            packing
        };
        let image = images.image(&[(&layer[..], packing), (&upper, above)], &json!({}));
        images.tag("t", image);
        let (server, _) = fake(&images);
        let mib = peak(&name(&server, "t"), &server.address().to_string(), true);
        assert!(mib < 128, "{packing:?}: {mib} MiB");
        println!("{packing:?}: {mib} MiB");
    }
}

#[test]
fn bombs_end_in_bounded_memory() {
    if !have("time") || !have("gzip") {
        return;
    }
    // A name of 160 MiB, and manifests that are as many small things as fit.
    let mut tar = Tar::default();
    tar.header("././@LongLink", b'L', "", 160 << 20);
    let mut tar = tar.cut();
    tar.resize(tar.len() + (160 << 20), b'a');
    let mut images = Images::default();
    let image = images.image(&[(&tar, Packing::Gzip)], &json!({}));
    images.tag("name", image);
    let pairs: Vec<_> = (0..200_000).map(|n| format!(r#""{n}":"""#)).collect();
    let pairs = pairs.join(",");
    let annotations = format!(r#"{{"annotations":{{{pairs}}},"config":[]}}"#);
    let text = images.blob(
        "application/vnd.oci.image.manifest.v1+json",
        annotations.into_bytes(),
    );
    images.tag("annotations", text);
    let entry = format!(r#"{{"digest":"sha256:{}","size":1}},"#, "0".repeat(64));
    let mut entries = entry.repeat(40_000);
    entries.pop();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
    let text = images.blob(
        "application/vnd.oci.image.index.v1+json",
        index.into_bytes(),
    );
    images.tag("index", text);
    let (server, _) = fake(&images);
    for tag in ["name", "annotations", "index"] {
        let mib = peak(&name(&server, tag), &server.address().to_string(), false);
        assert!(mib < 128, "{tag}: {mib} MiB");
        println!("{tag}: {mib} MiB");
    }
}
