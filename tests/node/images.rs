//! Container images of a test's own, put among those that the node has.

use longshore_tests::data;
use longshore_tests::program::{digest, run};
use serde_json::{Value, json};

use super::rig::Case;

/// A tar with these files, of the user that pods run as.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o440);
        header.set_uid(107);
        header.set_gid(107);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An image of this one layer, with this configuration of what it runs, as Docker archives it.
pub(crate) fn archive(reference: Option<&str>, layer: &[u8], config: &Value) -> Vec<u8> {
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest("sha256", layer)]},
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": reference.map(|name| [name]),
        "Layers": ["layer.tar"],
    }]);
    tar(&[
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().as_bytes()),
    ])
}

/// Puts such an image there.
pub(crate) fn load(case: &Case, reference: &str, layer: &[u8], config: &Value) {
    let folder = data::quick_dir();
    let file = folder.path().join("image.tar");
    std::fs::write(&file, archive(Some(reference), layer, config)).unwrap();
    run(case.ctr().args(["images", "import"]).arg(&file));
}
