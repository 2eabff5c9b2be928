//! Disks of oVirt, from its real server and a fake engine: whole, and checkpoint by checkpoint.

use std::path::PathBuf;

use longshore_tests::data;
use longshore_tests::imageio::{Behaviour, FakeEngine, Imageio, PASSWORD, USER, layers, shallow};
use longshore_tests::nbd::Server;
use longshore_tests::program::have;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::rig::{Case, case, disk, holds, holds_sparse};
use super::{annotated, checkpoints, fails, go_on, volume, warm};

/// A folder with `base.raw`, and `top.qcow2` with changes on top of it.
pub(super) struct Disks {
    folder: TempDir,
    pub(super) base: Vec<u8>,
}

impl Disks {
    pub(super) fn new(seed: u64) -> Self {
        let folder = data::quick_dir();
        let base = disk(seed);
        let this = Self { folder, base };
        std::fs::write(this.path("base.raw"), &this.base).unwrap();
        let changes = "-c 'write -P 7 1M 300k' -c 'write -z 3M 1M' -c 'write -P 9 8M 64k'";
        layers(this.folder.path(), changes);
        this
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// An engine whose disk is behind `server`; `None` where it is not installed.
pub(super) fn engine(case: &Case, server: &Server, size: usize) -> Option<FakeEngine> {
    let imageio = Imageio::start_on(case.address().parse().unwrap())?;
    let behaviour = Behaviour {
        parent: Some("image-1"),
        ..Behaviour::default()
    };
    Some(FakeEngine::start(imageio, server, size as u64, behaviour))
}

pub(super) fn source(engine: &FakeEngine, keys: &str) -> Value {
    json!({"imageio": {
        "url": engine.api(), "diskId": "disk-1", "secretRef": keys, "insecureSkipVerify": true,
    }})
}

/// What opens the engine, as the Secret `keys`.
pub(super) fn keys(case: &Case) {
    super::keys(case, "keys", USER, PASSWORD);
}

pub(super) fn have_all() -> bool {
    ["qemu-nbd", "qemu-img", "qemu-io"].into_iter().all(have)
}

#[test]
fn a_disk_of_ovirt_is_imported_by_a_claim_and_wrong_passwords_are_told() {
    let Some(case) = case() else { return };
    if !have_all() {
        return;
    }
    let disks = Disks::new(43);
    let server = Server::qemu("raw", &disks.path("base.raw"));
    let Some(engine) = engine(&case, &server, disks.base.len()) else {
        return;
    };
    keys(&case);
    super::keys(&case, "wrong", USER, "not-this-one");
    let folder = case.folder_for("claim");
    case.folder_for("refused");
    volume(&case, "refused", &source(&engine, "wrong"));
    annotated(
        &case,
        "claim",
        &[
            ("import.source", "imageio"),
            ("import.endpoint", &engine.api()),
            ("import.diskId", "disk-1"),
            ("import.secretName", "keys"),
        ],
    );
    case.filled("claim");
    holds_sparse(&folder, &disks.base);
    fails(
        &case,
        "refused",
        "Error",
        &["imageio", "Cannot authenticate user"],
    );
    assert!(engine.is_quiet(), "{:?}", engine.calls());
}

#[test]
fn a_disk_in_use_is_copied_checkpoint_by_checkpoint() {
    let Some(case) = case() else { return };
    if !have_all() {
        return;
    }
    let disks = Disks::new(45);
    let before = Server::qemu("raw", &disks.path("base.raw"));
    let Some(engine) = engine(&case, &before, disks.base.len()) else {
        return;
    };
    keys(&case);
    let folder = case.folder_for("warm");
    let stages = checkpoints("image-1", "image-2");
    case.apply(&warm(&source(&engine, "keys"), &stages));
    case.wait("dv/warm", ".status.phase", "Paused");
    holds(&folder.join("disk.img"), &disks.base, 0);
    // The machine went on: there is another layer now.
    let top = shallow(disks.folder.path());
    engine.put(&top);
    go_on(&case, &stages);
    case.succeeded("warm");
    let now = std::fs::read(disks.path("now.raw")).unwrap();
    holds(&folder.join("disk.img"), &now, 0);
    assert_eq!(engine.count("/finalize"), 2, "{:?}", engine.calls());
    assert!(engine.is_quiet(), "{:?}", engine.calls());
}
