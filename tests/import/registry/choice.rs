//! Which image, and which layer of it.

use longshore_tests::data::disk;
use longshore_tests::registry::Registry;
use serde_json::{Value, json};

use super::image::{Images, Packing, Tar, layer_with};
use super::{fake, gives, have_all, insecure, name, pulled, refusal};

#[test]
fn the_image_of_the_platform_is_taken() {
    if !have_all() {
        return;
    }
    let registry = Registry::start();
    let (amd64, arm64, arm) = (disk(100_000, 1), disk(100_000, 2), disk(100_000, 3));
    let mut images = Images::default();
    let mut image = |bytes: &[u8]| images.image(&[(&layer_with(bytes), Packing::Gzip)], &json!({}));
    let (a, b, c) = (image(&amd64), image(&arm64), image(&arm));
    let index = images.index(&[
        (&a, "linux/amd64"),
        (&b, "linux/arm64/v8"),
        (&c, "linux/arm/v7"),
    ]);
    images.tag("t", index);
    images.push(&registry, "t", "multi:t");
    let name = registry.name("multi:t");
    let on = |platform: &str| {
        let mut options = insecure(&[registry.address()]);
        options.registry.platform = Some(platform.parse().unwrap());
        options
    };
    for (platform, expected) in [
        ("amd64", &amd64),
        ("linux/arm64", &arm64),
        ("linux/arm64/v8", &arm64),
        ("arm/v7", &arm),
    ] {
        if platform != "arm/v7" {
            gives(&name, &on(platform), expected);
        }
    }
    gives(&name, &on("linux/arm/v7"), &arm);
    let refused = refusal(&name, &on("s390x"));
    let refused = refused
        .says(r#"no image found in image index for architecture "s390x", variant "", OS "linux""#);
    let refused = refused.says("linux/arm/v7");
    assert_eq!(refused.exit_code, 3);
    assert_eq!(refused.at_once.unwrap().reason(), "NoImageForPlatform");
    refusal(&name, &on("windows/amd64")).says(r#"OS "windows""#);
}

#[test]
fn indexes_lie_in_indexes_but_not_for_ever() {
    let mut images = Images::default();
    let expected = disk(50_000, 4);
    let mut at = images.image(&[(&layer_with(&expected), Packing::Plain)], &json!({}));
    for depth in 1..8 {
        let platform = format!("linux/{}", "amd64");
        at = images.index(&[(&at, platform.as_str())]);
        images.tag(&format!("d{depth}"), at.clone());
    }
    let (server, mut options) = fake(&images);
    options.registry.platform = Some("amd64".parse().unwrap());
    gives(&name(&server, "d4"), &options, &expected);
    refusal(&name(&server, "d6"), &options).says("deep");
}

/// An image of these layers, from the bottom, in a fake registry.
fn stacked(layers: &[Vec<u8>]) -> Images {
    let mut images = Images::default();
    let packings = [Packing::Gzip, Packing::Zstd, Packing::Plain];
    let layers: Vec<_> = layers
        .iter()
        .zip(packings.iter().cycle())
        .map(|(layer, packing)| (layer.as_slice(), *packing))
        .collect();
    let image = images.image(&layers, &json!({}));
    images.tag("t", image);
    images
}

fn files(paths: &[&str]) -> Vec<u8> {
    let files = paths
        .iter()
        .fold(Tar::default(), |tar, path| tar.file(path, b""));
    files.done()
}

#[test]
fn the_topmost_layer_with_a_disk_counts() {
    let (lower, upper) = (disk(400_000, 5), disk(300_000, 6));
    let etc = files(&["etc/passwd", "usr/disk/disk.img", "disks/a"]);
    for (layers, expected) in [
        (vec![layer_with(&lower), etc.clone()], &lower),
        (vec![etc.clone(), layer_with(&lower), etc.clone()], &lower),
        (
            vec![
                layer_with(&lower),
                etc.clone(),
                layer_with(&upper),
                etc.clone(),
            ],
            &upper,
        ),
        (vec![layer_with(&lower), files(&["disk/.wh.other"])], &lower),
        (
            vec![layer_with(&lower), files(&["disk/.wh..wh.aufs"])],
            &lower,
        ),
    ] {
        let (server, options) = fake(&stacked(&layers));
        gives(&name(&server, "t"), &options, expected);
    }
}

#[test]
fn what_an_upper_layer_takes_away_is_not_there() {
    let lower = layer_with(&disk(100_000, 7));
    for taken in [
        ".wh.disk",
        "disk/.wh.disk.img",
        "disk/.wh..wh..opq",
        "./disk/.wh.disk.img",
        ".wh..wh..opq",
    ] {
        let (server, options) = fake(&stacked(&[lower.clone(), files(&[taken])]));
        let refused = refusal(&name(&server, "t"), &options);
        let refused = refused.says("Failed to find VM disk image file in the container image");
        assert_eq!(refused.exit_code, 3, "{taken}");
    }
    // What takes away and brings at once brings.
    let expected = disk(100_000, 8);
    let upper = Tar::default()
        .file("disk/.wh..wh..opq", b"")
        .file("disk/new.img", &expected)
        .done();
    let (server, options) = fake(&stacked(&[lower, upper]));
    gives(&name(&server, "t"), &options, &expected);
}

#[test]
fn layers_below_the_disk_are_not_fetched_and_one_alone_only_once() {
    let expected = disk(600_000, 9);
    let bottom = files(&["etc/os-release"]);
    let images = stacked(&[bottom, layer_with(&expected)]);
    let (server, options) = fake(&images);
    gives(&name(&server, "t"), &options, &expected);
    let blobs = |digest: &str| {
        let log = server.log();
        let asked = log.requests.iter().filter(|r| r.target.ends_with(digest));
        asked.count()
    };
    assert!(blobs(&images.top_layer("t")) <= 2, "{:?}", server.log());
    let layers = server.log().requests;
    let layers = layers.iter().filter(|r| r.target.contains("/blobs/"));
    let mut asked: Vec<_> = layers.map(|r| r.target.clone()).collect();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 2, "the configuration and one layer: {asked:?}");

    let single = Images::of_disk("t", &expected, Packing::Gzip);
    let (server, options) = fake(&single);
    gives(&name(&server, "t"), &options, &expected);
    let log = server.log();
    let layer = single.top_layer("t");
    let asked = log.requests.iter().filter(|r| r.target.ends_with(&layer));
    assert_eq!(asked.count(), 1);
}

#[test]
fn images_without_one_disk_are_refused_in_upstreams_words() {
    let none = "Failed to find VM disk image file in the container image";
    let two = Tar::default()
        .file("disk/a", b"1")
        .file("disk/b", b"2")
        .done();
    let deep = files(&["disk/deep/er.img"]);
    for (layers, says) in [
        (vec![], none),
        (vec![files(&["etc/passwd"])], none),
        (vec![files(&["a"]), files(&["b"])], none),
        (vec![deep], "deeper"),
        (vec![two.clone()], "more than one file"),
        (
            vec![files(&["a"]), two, files(&["b"])],
            "more than one file",
        ),
    ] {
        let (server, options) = fake(&stacked(&layers));
        let refused = refusal(&name(&server, "t"), &options).says(says);
        assert_eq!(refused.exit_code, 3, "{says}");
    }
}

#[test]
fn operating_systems_are_refused_by_their_label() {
    for label in [
        json!({ "containers.bootc": "1" }),
        json!({ "ostree.bootable": "true" }),
    ] {
        let mut images = Images::default();
        let settings: Value = json!({ "Labels": label });
        let image = images.image(&[(&layer_with(b"x"), Packing::Plain)], &settings);
        images.tag("t", image);
        let (server, options) = fake(&images);
        let refused = refusal(&name(&server, "t"), &options).says("bootc");
        assert_eq!(refused.at_once.unwrap().reason(), "BootcImage");
    }
}

#[test]
fn a_disk_may_be_compressed_once_more() {
    let expected = disk(400_000, 10);
    for packing in [Packing::Gzip, Packing::Zstd] {
        let inner = packing.pack(&expected);
        let images = Images::of_disk("t", &inner, Packing::Gzip);
        let (server, options) = fake(&images);
        let image = pulled(&name(&server, "t"), &options);
        assert!(image.digest.starts_with("sha256:"));
        gives(&name(&server, "t"), &options, &expected);
    }
}
