//! From a manifest to a guest's last word: plan, files, arguments, run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use longshore_crds::Manifest;
use longshore_launcher::plan::{DiskKind, DiskPath, Host, plan};
use longshore_launcher::supervisor::{End, Options, run};

use crate::guests;
use crate::host::{QEMU, fast_accelerators, has};
use crate::rig::{DEADLINE, Setup};

const MANIFEST: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: boot-sector
spec:
  domain:
    memory:
      guest: 64Mi
    devices:
      disks:
      - name: root
        disk:
          bus: virtio
  volumes:
  - name: root
    persistentVolumeClaim:
      claimName: root
  - name: seed
    cloudInitNoCloud:
      userData: '#cloud-config'
";

#[test]
fn a_planned_guest_reads_its_disk_and_powers_off() {
    if !has(QEMU) {
        return;
    }
    // `-cpu host` asks more of KVM than a device that emulates can do.
    for accelerator in fast_accelerators() {
        let dir = tempfile::tempdir().unwrap();
        // A path no socket could have: sockets are to be relative to the directory.
        let state_dir = dir.path().join("state".repeat(30));
        let disk = dir.path().join("root.img");
        Setup::new(guests::checksum()).write_disk(&disk);
        let manifest = Manifest::parse(MANIFEST.as_bytes(), &[]).unwrap();
        let path = DiskPath {
            path: disk,
            kind: DiskKind::File,
        };
        let host = Host {
            accelerator,
            qemu: PathBuf::from(QEMU),
            state_dir,
            cpus: 1,
            disks: BTreeMap::from([("root".to_owned(), path)]),
            allow_host_disks: false,
            forwards: Vec::new(),
        };
        let plan = plan(&manifest, &host).unwrap();
        let notices = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&notices);
        let options = Options {
            signals: false,
            timeout: Some(DEADLINE),
            on_event: Box::new(move |notice| told.lock().unwrap().push(notice.to_string())),
            ..Options::default()
        };
        let outcome = run(&plan, options).unwrap();
        let told = notices.lock().unwrap();
        assert_eq!(outcome.end, End::PoweredOff, "{accelerator}: {told:?}");
        let log = std::fs::read_to_string(plan.serial_log.unwrap()).unwrap();
        assert!(log.contains("is the checksum"), "{accelerator}: {log:?}");
    }
}
