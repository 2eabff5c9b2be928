//! Imports onto volumes that a CSI driver provisions.

use std::panic::UnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_tests::data;
use longshore_tests::device::unmount;
use longshore_tests::eventually;
use longshore_tests::http::Page;
use longshore_tests::node::attached_in;
use longshore_tests::program::{digest, run};
use serde_json::{Value, json};

use super::rig::{Case, case, data_volume, disk, holds, holds_sparse, http};
use super::storage::pod;

/// What a claim of such a volume asks for.
pub(crate) fn claim_spec(class: &str, mode: &str) -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": class, "volumeMode": mode,
        "resources": {"requests": {"storage": "64Mi"}},
    })
}

impl Case {
    /// The image of a claim's volume, once no pod uses it.
    fn image_of(&self, claim: &str) -> PathBuf {
        let volume = self.get(&self.volume_of(claim));
        let image = self.node.image_of(&volume).unwrap();
        eventually("a volume that nobody uses", || {
            attached_in(&image).is_empty().then_some(())
        });
        image
    }

    /// Demands that a claim's volume holds this disk.
    pub(crate) fn claim_holds(&self, claim: &str, mode: &str, disk: &[u8]) {
        if mode == "Block" {
            holds(&self.image_of(claim), disk, 0);
        } else {
            self.claim_has(claim, |folder| holds_sparse(folder, disk));
        }
    }

    /// Looks at the filesystem in a claim's volume.
    pub(crate) fn claim_has(&self, claim: &str, look: impl Fn(&Path) + UnwindSafe) {
        let image = self.image_of(claim);
        let at = data::quick_dir();
        let folder = at.path().to_owned();
        run(Command::new("mount")
            .args(["-o", "loop,ro,nouuid"])
            .arg(&image)
            .arg(&folder));
        let looked = std::panic::catch_unwind(move || look(&folder));
        unmount(at.path());
        looked.unwrap();
    }
}

/// Who mounts the claim while it is filled.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// The importer itself.
    Importer,
    /// Nobody: another claim is filled in its place, whose volume it gets.
    Populator,
}

fn fills(by: By, class: &str, mode: &str, seed: u64) {
    let Some(case) = case() else { return };
    let disk = disk(seed);
    let server = case.serve(Page::of(disk.clone()));
    let mut volume = data_volume("volume", &http(&server));
    volume["spec"]["pvc"] = claim_spec(class, mode);
    let mut annotations = json!({"cdi.kubevirt.io/storage.bind.immediate.requested": "true"});
    if by == By::Importer {
        annotations["cdi.kubevirt.io/storage.usePopulator"] = json!("false");
    }
    volume["metadata"]["annotations"] = annotations;
    case.apply(&volume);
    case.succeeded("volume");
    let claim = case.get("pvc/volume");
    let source = &claim["spec"]["dataSourceRef"]["kind"];
    if by == By::Importer {
        assert!(source.is_null(), "{claim}");
        case.wait_for("pod/importer-volume", "delete");
    } else {
        assert_eq!(source, "VolumeImportSource", "{claim}");
        let uid = claim["metadata"]["uid"].as_str().unwrap();
        case.wait_for(&format!("pvc/prime-{uid}"), "delete");
    }
    case.claim_holds("volume", mode, &disk);
}

#[test]
fn a_filesystem_that_is_there_at_once_is_filled() {
    fills(By::Importer, "csi", "Filesystem", 61);
}

#[test]
fn a_filesystem_that_waits_for_its_user_is_filled() {
    fills(By::Importer, "csi-wffc", "Filesystem", 62);
}

#[test]
fn a_device_that_is_there_at_once_is_filled() {
    fills(By::Importer, "csi", "Block", 63);
}

#[test]
fn a_device_that_waits_for_its_user_is_filled() {
    fills(By::Importer, "csi-wffc", "Block", 64);
}

#[test]
fn a_filesystem_comes_filled_at_once() {
    fills(By::Populator, "csi", "Filesystem", 65);
}

#[test]
fn a_filesystem_of_a_late_class_comes_filled() {
    fills(By::Populator, "csi-wffc", "Filesystem", 66);
}

#[test]
fn a_device_comes_filled_at_once() {
    fills(By::Populator, "csi", "Block", 67);
}

#[test]
fn a_device_of_a_late_class_comes_filled() {
    fills(By::Populator, "csi-wffc", "Block", 68);
}

#[test]
fn a_claim_without_a_data_volume_comes_filled_for_the_pod_that_uses_it() {
    let Some(case) = case() else { return };
    let disk = disk(69);
    let server = case.serve(Page::of(disk.clone()));
    case.apply(&json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "VolumeImportSource",
        "metadata": {"name": "source"},
        "spec": {"source": http(&server)},
    }));
    let mut spec = claim_spec("csi-wffc", "Block");
    spec["dataSourceRef"] = json!({
        "apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": "source",
    });
    case.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "disk"},
        "spec": spec,
    }));
    let script = format!("head -c {} /disk | sha256sum", disk.len());
    case.apply(&pod("reader", &["disk"], "Block", &script));
    case.wait("pod/reader", ".status.phase", "Succeeded");
    let sum = case.ask(&["logs", "reader"]);
    let sum = format!("sha256:{}", sum.split(' ').next().unwrap());
    assert_eq!(sum, digest("sha256", &disk));
    case.filled("disk");
}
