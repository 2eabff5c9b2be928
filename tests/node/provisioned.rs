//! Imports onto volumes that a CSI driver provisions.

use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_tests::data;
use longshore_tests::http::Page;
use longshore_tests::program::run;
use serde_json::{Value, json};

use super::rig::{Case, case, data_volume, disk, eventually, holds, holds_sparse, http};

/// What a claim of such a volume asks for.
fn claim_spec(class: &str, mode: &str) -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": class, "volumeMode": mode,
        "resources": {"requests": {"storage": "64Mi"}},
    })
}

impl Case {
    /// The image of a claim's volume, once no pod uses it.
    fn image_of(&self, claim: &str) -> PathBuf {
        let claim = self.get(&format!("pvc/{claim}"));
        let volume = claim["spec"]["volumeName"].as_str().unwrap();
        let volume = self.get(&format!("pv/{volume}"));
        let handle = volume["spec"]["csi"]["volumeHandle"].as_str().unwrap();
        let image = self.driver_folder().join(format!("volumes/{handle}.img"));
        eventually("a volume that nobody uses", || {
            (!is_attached(&image)).then_some(())
        });
        image
    }

    /// Demands that a claim's volume holds this disk.
    fn claim_holds(&self, claim: &str, mode: &str, disk: &[u8]) {
        let image = self.image_of(claim);
        if mode == "Block" {
            holds(&image, disk, 0);
            return;
        }
        let at = data::quick_dir();
        run(Command::new("mount")
            .args(["-o", "loop,ro,nouuid"])
            .arg(&image)
            .arg(at.path()));
        let compared = std::panic::catch_unwind(|| holds_sparse(at.path(), disk));
        run(Command::new("umount").arg(at.path()));
        compared.unwrap();
    }
}

/// Whether there is a loop device over a file.
fn is_attached(file: &Path) -> bool {
    std::fs::read_dir("/sys/block").unwrap().any(|entry| {
        let backing = entry.unwrap().path().join("loop/backing_file");
        std::fs::read_to_string(backing).is_ok_and(|text| Path::new(text.trim_end()) == file)
    })
}

/// An import by a pod that mounts the claim itself.
fn directly(class: &str, mode: &str, seed: u64) {
    let Some(case) = case() else { return };
    let disk = disk(seed);
    let server = case.serve(Page::of(disk.clone()));
    let mut volume = data_volume("volume", &http(&server));
    volume["spec"]["pvc"] = claim_spec(class, mode);
    volume["metadata"]["annotations"] = json!({
        "cdi.kubevirt.io/storage.usePopulator": "false",
        "cdi.kubevirt.io/storage.bind.immediate.requested": "true",
    });
    case.apply(&volume);
    case.succeeded("volume");
    case.wait_for("pod/importer-volume", "delete");
    case.claim_holds("volume", mode, &disk);
}

#[test]
fn a_filesystem_that_is_there_at_once_is_filled() {
    directly("csi", "Filesystem", 61);
}

#[test]
fn a_filesystem_that_waits_for_its_user_is_filled() {
    directly("csi-wffc", "Filesystem", 62);
}

#[test]
fn a_device_that_is_there_at_once_is_filled() {
    directly("csi", "Block", 63);
}

#[test]
fn a_device_that_waits_for_its_user_is_filled() {
    directly("csi-wffc", "Block", 64);
}
