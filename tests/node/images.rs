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

/// Puts an image of this one layer there, with this configuration of what it runs.
pub(crate) fn load(case: &Case, reference: &str, layer: &[u8], config: &Value) {
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest("sha256", layer)]},
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"],
    }]);
    let folder = data::quick_dir();
    let archive = folder.path().join("image.tar");
    let bytes = tar(&[
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().as_bytes()),
    ]);
    std::fs::write(&archive, bytes).unwrap();
    run(case.ctr().args(["images", "import"]).arg(&archive));
}
