//! `info` and `map`: what they print, as data.

use longshore_tests::program::{have, said};
use serde_json::{Value, json};

use crate::rig::{MIB, Rig, error_of, json_of};

#[test]
fn info_tells_sizes_and_allocation_as_json() {
    let rig = Rig::new();
    let file = std::fs::File::create(rig.path("in.raw")).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![1; MIB], 8 << 20).unwrap();
    let info = json_of(&rig.ends(&["info", "--json", "in.raw"], 0));
    assert_eq!(info["format"], "raw");
    assert_eq!(info["virtualSize"], 64 << 20);
    assert_eq!(info["allocatedBytes"], MIB);
    assert_eq!(info["fileSize"], 64 << 20);
    assert_eq!(info["refused"], Value::Null);
    let text = rig.ends(&["info", "in.raw"], 0).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("64 MiB (67108864 bytes)"), "{text}");
}

#[test]
fn info_says_why_what_it_cannot_know_is_missing() {
    let rig = Rig::new();
    if !have("gzip") {
        return;
    }
    let bytes = rig.image("in.raw", MIB);
    rig.shell("gzip -k in.raw");
    let info = json_of(&rig.ends(&["info", "--json", "in.raw.gz"], 0));
    assert_eq!(info["wrappers"], json!(["gz"]));
    for key in ["virtualSize", "allocatedBytes"] {
        assert_eq!(info[key], Value::Null, "{key}");
        assert!(info[format!("{key}Reason")].is_string(), "{key}");
    }
    let output = rig.ends(&["map", "in.raw.gz"], 1);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("next: "),
        "{}",
        said(&output)
    );
    let output = rig.fed(&["info", "--json", "-"], &bytes);
    assert_eq!(json_of(&output)["source"], "standard input");
    assert_eq!(json_of(&output)["format"], "raw");
}

#[test]
fn info_describes_a_refusal_in_its_json() {
    let rig = Rig::new();
    rig.write("bad.qcow2", b"QFI\xfb\0\0\0\x09 no such version");
    let output = rig.ends(&["info", "--json", "bad.qcow2"], 3);
    let info = json_of(&output);
    assert!(info["refused"]["reason"].is_string(), "{info}");
    let message = info["refused"]["message"].as_str().unwrap();
    assert_eq!(error_of(&output), format!("error: {message}"));
    let info = json_of(&rig.ends(&["info", "--json", "missing"], 1));
    assert_eq!(info["error"]["reason"], "SourceUnreadable");
    assert_eq!(info.get("refused"), None, "it is not the image's fault");
}

#[test]
fn a_backing_file_is_shown_and_opened_only_when_let_in() {
    let rig = Rig::new();
    if !have("qemu-img") {
        return;
    }
    let bytes = rig.image("base.raw", 4 * MIB);
    let create = "qemu-img create -q -f qcow2 -F raw";
    rig.shell(&format!("{create} -b base.raw top.qcow2"));
    let info = json_of(&rig.ends(&["info", "--json", "top.qcow2"], 0));
    let reference = json!([
        {"kind": "backing-file", "name": "base.raw", "format": "raw", "opened": false}
    ]);
    assert_eq!(info["references"], reference);
    assert_eq!(info["allocatedBytes"], 0, "of the image itself");
    rig.ends(&["map", "top.qcow2"], 3);
    rig.ends(&["convert", "top.qcow2", "out.raw"], 3);
    assert!(!rig.path("out.raw").exists());
    let info = json_of(&rig.ends(&["info", "--json", "--backing", "same-dir", "top.qcow2"], 0));
    assert_eq!(info["references"][0]["opened"], true);
    rig.ends(
        &["convert", "--backing", "same-dir", "top.qcow2", "out.raw"],
        0,
    );
    assert!(rig.read("out.raw") == bytes);
    // What lies elsewhere stays out even so.
    std::fs::create_dir(rig.path("inner")).unwrap();
    rig.shell(&format!("{create} -b ../base.raw inner/top.qcow2"));
    rig.ends(
        &[
            "convert",
            "--backing",
            "same-dir",
            "inner/top.qcow2",
            "two.raw",
        ],
        3,
    );
}

#[test]
fn map_agrees_with_qemu_img() {
    let rig = Rig::new();
    if !have("qemu-img") {
        return;
    }
    rig.image("in.raw", 8 * MIB);
    rig.shell("qemu-img convert -O qcow2 -c in.raw in.qcow2");
    let theirs = rig.shell("qemu-img map --output=json in.qcow2");
    let theirs: Value = serde_json::from_slice(&theirs).unwrap();
    let ours = json_of(&rig.ends(&["map", "--json", "in.qcow2"], 0));
    let is_data = |extents: &Value| -> Vec<(u64, u64)> {
        // Ranges of data, neighbours joined: how they are cut is each program's own business.
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for extent in extents.as_array().unwrap() {
            let start = extent["start"].as_u64().unwrap();
            let end = start + extent["length"].as_u64().unwrap();
            if extent["data"] == true {
                match joined.last_mut() {
                    Some((_, last)) if *last == start => *last = end,
                    _ => joined.push((start, end)),
                }
            }
        }
        joined
    };
    assert_eq!(is_data(&ours), is_data(&theirs));
    let ours = ours.as_array().unwrap();
    let mut next = 0;
    for extent in ours {
        assert_eq!(extent["start"], next, "no gap, no overlap");
        next += extent["length"].as_u64().unwrap();
        assert_ne!(extent["zero"], extent["data"]);
        assert_eq!(extent["offset"].is_u64(), extent["data"] == true);
    }
    assert_eq!(next, 8 << 20);
    assert!(ours.iter().any(|extent| extent["compressed"] == true));
}
