//! `run`: disks that are imported once and kept, and a machine that boots from one.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use longshore_tests::eventually;
use longshore_tests::http::{Page, Rate, Server};
use longshore_tests::journal::Steps;
use longshore_tests::program::{have, said, signal, silent};

use crate::rig::{MIB, Rig, error_of};

/// A boot sector that prints a line on the serial console and powers off through ACPI.
const GREETING: &[u8] = b"hello from the disk\r\n\0";

fn bootable(len: usize) -> Vec<u8> {
    let mut disk = longshore_tests::data::disk(len, 3);
    disk[..512].fill(0);
    let code = [
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x1c, 0x7c, // mov si, greeting
        0xba, 0xf8, 0x03, // mov dx, COM1
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz off
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
        0xba, 0x04, 0x06, // off: mov dx, PM1a control
        0xb8, 0x00, 0x20, // mov ax, sleep enable, type 0
        0xef, // out dx, ax
        0xf4, // hlt
        0xeb, 0xfd, // jmp hlt
    ];
    disk[..code.len()].copy_from_slice(&code);
    disk[code.len()..code.len() + GREETING.len()].copy_from_slice(GREETING);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

const MANIFEST: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: small}
spec:
  runStrategy: Once
  dataVolumeTemplates:
  - metadata: {name: root}
    spec:
      source: {http: {url: 'URL'}}
      storage: {resources: {requests: {storage: 4Mi}}}
  - metadata: {name: scratch}
    spec:
      source: {blank: {}}
      storage: {resources: {requests: {storage: 8Mi}}}
  template:
    spec:
      domain:
        memory: {guest: 64Mi}
        devices:
          disks:
          - {name: root, bootOrder: 1, disk: {bus: virtio}}
          - {name: scratch, disk: {bus: virtio}}
      volumes:
      - {name: root, dataVolume: {name: root}}
      - {name: scratch, dataVolume: {name: scratch}}
";

struct Bench {
    rig: Rig,
    server: Server,
    disk: Vec<u8>,
}

impl Bench {
    fn new() -> Option<Self> {
        have("qemu-system-x86_64").then(|| {
            let (rig, disk) = (Rig::new(), bootable(2 * MIB));
            let server = Server::start([("/disk", Page::of(disk.clone()))]);
            rig.write(
                "vm.yaml",
                MANIFEST.replace("URL", &server.url("/disk")).as_bytes(),
            );
            Self { rig, server, disk }
        })
    }

    const RUN: [&str; 9] = [
        "run",
        "-f",
        "vm.yaml",
        "--state",
        "state",
        "--accel",
        "tcg",
        "--timeout",
        "100",
    ];

    fn run(&self, more: &[&str]) -> Output {
        self.rig.longshore(&[&Self::RUN[..], more].concat())
    }

    fn boots(&self, more: &[&str]) {
        let output = self.run(more);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let console = String::from_utf8_lossy(&output.stdout);
        assert!(console.contains("hello from the disk"), "{console:?}");
    }

    fn img(&self) -> PathBuf {
        self.rig.path("state/disks/root.img")
    }

    fn has_the_disk(&self) {
        let disk = std::fs::read(self.img()).unwrap();
        assert_eq!(disk.len(), 4 * MIB);
        assert!(disk[..self.disk.len()] == self.disk);
        assert!(disk[self.disk.len()..].iter().all(|b| *b == 0));
    }

    fn asked(&self) -> usize {
        self.server.log().requests.len()
    }
}

#[test]
fn a_machine_boots_from_an_imported_disk_and_again_without_the_network() {
    let Some(bench) = Bench::new() else { return };
    bench.boots(&[]);
    bench.has_the_disk();
    let scratch = std::fs::read(bench.rig.path("state/disks/scratch.img")).unwrap();
    assert!(scratch.len() == 8 * MIB && scratch.iter().all(|b| *b == 0));
    let Bench {
        rig,
        server,
        disk: _,
    } = bench;
    drop(server);
    let output = rig.longshore(&Bench::RUN);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("hello from the disk"));
}

#[test]
fn a_used_disk_survives_a_new_source_until_told_otherwise() {
    let Some(bench) = Bench::new() else { return };
    bench.boots(&[]);
    let asked = bench.asked();
    bench
        .server
        .set("/disk", Page::of(bootable(3 * MIB)).etag(Some("\"v2\"")));
    bench.boots(&[]);
    bench.has_the_disk();
    assert_eq!(bench.asked(), asked, "a disk that is there asks nothing");

    let url = bench.server.url("/other");
    bench.server.set("/other", Page::of(bootable(3 * MIB)));
    let set = format!("spec.dataVolumeTemplates[0].spec.source.http.url={url}");
    let output = bench.run(&["--set", &set]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(error_of(&output).contains("/other"), "{}", said(&output));
    assert!(
        said(&output).contains("--reimport root"),
        "{}",
        said(&output)
    );
    bench.has_the_disk();

    bench.boots(&["--set", &set, "--reimport", "root"]);
    let disk = std::fs::read(bench.img()).unwrap();
    assert!(disk[..3 * MIB] == bootable(3 * MIB));
}

#[test]
fn a_larger_size_grows_the_disk_and_a_smaller_one_does_not_cut_it() {
    let Some(bench) = Bench::new() else { return };
    bench.boots(&[]);
    let size = |size: &str| {
        format!("spec.dataVolumeTemplates[0].spec.storage.resources.requests.storage={size}")
    };
    bench.boots(&["--set", &size("6Mi")]);
    assert_eq!(std::fs::metadata(bench.img()).unwrap().len(), 6 << 20);
    bench.boots(&["--set", &size("1Mi")]);
    let disk = std::fs::read(bench.img()).unwrap();
    assert_eq!(disk.len(), 6 * MIB);
    assert!(disk[..bench.disk.len()] == bench.disk);
}

#[test]
fn what_cannot_be_imported_ends_as_import_does() {
    let Some(bench) = Bench::new() else { return };
    let set = "spec.dataVolumeTemplates[0].spec.storage.resources.requests.storage=1Mi";
    let output = bench.run(&["--set", set]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(
        error_of(&output).contains("data volume root"),
        "{}",
        said(&output)
    );
    bench
        .server
        .set("/disk", Page::of(&b"QFI\xfb\0\0\0\x09 no such version"[..]));
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    bench.server.set("/disk", Page::status(403));
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!bench.img().exists());
    bench.server.set("/disk", Page::of(bench.disk.clone()));
    bench.boots(&[]);
}

#[test]
fn a_kill_while_importing_or_running_is_continued_by_the_next_run() {
    let Some(bench) = Bench::new() else { return };
    let rate = Rate::of_all(MIB as u64);
    let slow = Page::of(bench.disk.clone()).throttle_by(&rate);
    bench.server.set("/disk", slow);
    let disks = bench.rig.path("state/disks");
    let moments: [(&str, PathBuf); 4] = [
        ("the record", disks.join("root.json")),
        ("the partial disk", disks.join(".root.img.partial")),
        ("the disk", bench.img()),
        ("qemu", bench.rig.path("state/qmp.sock")),
    ];
    for (what, path) in moments {
        let _ = std::fs::remove_dir_all(bench.rig.path("state"));
        let goes_away = path.ends_with(".root.img.partial");
        rate.dose(if goes_away { MIB as u64 } else { u64::MAX });
        let mut child = silent(&mut bench.rig.command(&Bench::RUN));
        eventually(what, || path.exists().then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
        rate.dose(u64::MAX);
        bench.boots(&[]);
        bench.has_the_disk();
    }
}

#[test]
fn an_import_that_was_killed_is_gone_on_with() {
    let Some(bench) = Bench::new() else { return };
    let bytes = bootable(16 * MIB);
    let page = Page::of(bytes.clone());
    let rate = Rate::of_all(3 * MIB as u64);
    rate.dose(6 * MIB as u64);
    bench.server.set("/disk", page.clone().throttle_by(&rate));
    let manifest = MANIFEST.replace("URL", &bench.server.url("/disk"));
    let manifest = manifest.replace("storage: 4Mi", "storage: 16Mi");
    bench.rig.write("vm.yaml", manifest.as_bytes());
    let mut child = silent(&mut bench.rig.command(&Bench::RUN));
    let journal = bench.rig.path("state/disks/.root.img.longshore-journal");
    let mut steps = Steps::from(1);
    eventually("a step of the journal", || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended: {ended:?}");
        let len = std::fs::metadata(&journal).map_or(0, |meta| meta.len());
        steps.one_more(usize::try_from(len).unwrap()).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    bench.server.set("/disk", page);
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        said(&output).contains("there from an earlier run"),
        "{}",
        said(&output)
    );
    assert!(std::fs::read(bench.img()).unwrap() == bytes);
    assert!(!journal.exists());
}

#[test]
fn one_run_at_a_time_uses_a_state_directory_and_a_signal_ends_it() {
    let Some(bench) = Bench::new() else { return };
    let slow = Page::of(bench.disk.clone()).throttle_all(64 << 10);
    bench.server.set("/disk", slow);
    let child = bench
        .rig
        .command(&Bench::RUN)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let partial = bench.rig.path("state/disks/.root.img.partial");
    eventually("the import", || partial.exists().then_some(()));
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(error_of(&output).contains("in use"), "{}", said(&output));
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!bench.img().exists());
}

#[test]
fn the_time_limit_counts_imports_too() {
    let Some(bench) = Bench::new() else { return };
    let slow = Page::of(bench.disk.clone()).throttle_all(64 << 10);
    bench.server.set("/disk", slow);
    let mut args = Bench::RUN;
    args[8] = "1";
    let output = bench.rig.ends(&args, 1);
    assert!(
        error_of(&output).contains("time limit of 1 s"),
        "{}",
        said(&output)
    );
    assert!(!bench.img().exists());
}

#[test]
fn manifests_that_make_no_sense_are_told_what_is_wrong() {
    let rig = Rig::new();
    let output = rig.ends(&["run", "-f", "missing.yaml"], 1);
    assert!(error_of(&output).contains("missing.yaml"));
    rig.write("vm.yaml", b"kind: [");
    rig.ends(&["run", "-f", "vm.yaml", "--state", "state"], 1);
    rig.write(
        "vm.yaml",
        MANIFEST.replace("URL", "file:///etc/passwd").as_bytes(),
    );
    let output = rig.ends(&["run", "-f", "vm.yaml", "--state", "state"], 1);
    assert!(error_of(&output).contains("http"), "{}", said(&output));
    let odd = MANIFEST.replace("URL", "http://localhost:1/x") + "  oddity: 1\n";
    rig.write("vm.yaml", odd.as_bytes());
    let output = rig.ends(&["run", "-f", "vm.yaml", "--state", "state"], 1);
    assert!(said(&output).contains("spec.oddity"), "{}", said(&output));
}

#[test]
fn a_machine_that_cannot_run_is_refused_before_anything_is_imported() {
    let Some(bench) = Bench::new() else { return };
    for set in [
        "spec.runStrategy=Halted",
        "spec.template.spec.domain.memory.guest=1",
    ] {
        let output = bench.run(&["--set", set]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }
    assert_eq!(bench.asked(), 0);
    assert!(!bench.img().exists());
}
