//! The command lines of whole manifests, compared with the files in `tests/golden`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p longshore-launcher --test plan_golden` rewrites these files.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests are not inside test functions, where these are allowed"
)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use longshore_crds::{Manifest, virtual_machine_instance::Volume};
use longshore_launcher::{
    accel::Accelerator,
    plan::{DiskKind, DiskPath, Host, Plan, PortForward, plan},
};

const QEMU: &str = "qemu-system-x86_64";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn manifest(name: &str) -> Manifest {
    let bytes = std::fs::read(golden(&format!("{name}.yaml"))).unwrap();
    Manifest::parse(&bytes, &[]).unwrap()
}

/// Whether somebody else has to say where the content of a volume is.
fn needs_disk(volume: &Volume) -> bool {
    matches!(
        volume.kinds()[..],
        ["dataVolume" | "persistentVolumeClaim" | "hostDisk"]
    )
}

fn host(manifest: &Manifest, accelerator: Accelerator, state_dir: &Path, images: &Path) -> Host {
    let volumes = &manifest.vm.spec.template.spec.volumes;
    let disks: BTreeMap<_, _> = volumes
        .iter()
        .filter(|volume| needs_disk(volume))
        .map(|volume| {
            let kind = if volume.name.ends_with("-block") {
                DiskKind::Block
            } else {
                DiskKind::File
            };
            (
                volume.name.clone(),
                DiskPath {
                    path: images.join(&volume.name),
                    kind,
                },
            )
        })
        .collect();
    Host {
        accelerator,
        qemu: PathBuf::from(QEMU),
        state_dir: state_dir.to_owned(),
        cpus: 2,
        disks,
        allow_host_disks: true,
        forwards: vec![PortForward {
            udp: false,
            host_port: 2222,
            guest_port: 22,
        }],
    }
}

/// A plan as a person would compare it: an option to a line, then everything else.
fn shown(plan: &Plan) -> String {
    let mut text = plan.program.display().to_string();
    for arg in &plan.args {
        let arg = arg.to_str().unwrap();
        text.push_str(if arg.starts_with('-') { "\n" } else { " " });
        text.push_str(arg);
    }
    let Plan {
        name,
        uuid: _,
        program: _,
        args: _,
        dir,
        sockets,
        serial_log,
        files,
        disks,
        grace,
        start_paused,
        notices,
    } = plan;
    write!(
        text,
        "\n\nname: {name}\ndir: {}\ngrace: {grace:?}\nstart paused: {start_paused}\n",
        dir.display()
    )
    .unwrap();
    write!(text, "sockets: {sockets:?}\nserial log: {serial_log:?}\n").unwrap();
    for file in files {
        writeln!(text, "file: {} {:?}", file.path.display(), file.content).unwrap();
    }
    for disk in disks {
        writeln!(
            text,
            "disk: {} = {} = {} at {}",
            disk.name,
            disk.node,
            disk.device,
            disk.path.display()
        )
        .unwrap();
    }
    for notice in notices {
        writeln!(text, "notice: {notice}").unwrap();
    }
    text
}

fn compare(name: &str, found: &str) {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "{name}, line {}", number + 1);
    }
    assert_eq!(
        found, wanted,
        "{name} is longer or shorter (UPDATE_GOLDEN=1 rewrites it)"
    );
}

fn check(name: &str, accelerator: Accelerator) {
    let manifest = manifest(name);
    let host = host(
        &manifest,
        accelerator,
        Path::new("/var/lib/longshore/vm"),
        Path::new("/images"),
    );
    let plan = plan(&manifest, &host).unwrap();
    compare(&format!("{name}.{accelerator}.txt"), &shown(&plan));
}

#[test]
fn a_typical_machine_under_kvm() {
    check("typical", Accelerator::Kvm);
}

#[test]
fn a_typical_machine_under_tcg() {
    check("typical", Accelerator::Tcg);
}

#[test]
fn the_smallest_machine_is_all_defaults() {
    check("smallest", Accelerator::Kvm);
}

#[test]
fn a_machine_with_one_of_everything() {
    check("everything", Accelerator::Tcg);
}

/// Ends with the test, however that ends.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails where the process has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts QEMU as planned, and has it end over its monitor before a processor runs.
fn qemu_takes(name: &str) {
    if Command::new(QEMU).arg("-version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "{QEMU} is not installed");
        eprintln!("skipped: {QEMU} is not installed");
        return;
    }
    // A comma ends an option's value where it is not escaped.
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("a,b=c");
    std::fs::create_dir(&dir).unwrap();
    let manifest = manifest(name);
    let mut host = host(&manifest, Accelerator::Tcg, &dir, &dir);
    // Whichever port is free.
    host.forwards[0].host_port = 0;
    for disk in host.disks.values_mut() {
        disk.kind = DiskKind::File;
        std::fs::File::create(&disk.path)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
    }
    let plan = plan(&manifest, &host).unwrap();
    for file in &plan.files {
        file.create().unwrap();
    }
    let log = dir.join("stderr");
    let process = Command::new(&plan.program)
        .args(&plan.args)
        .current_dir(&plan.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut qemu = Qemu(process);
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut monitor = loop {
        if let Ok(socket) = std::os::unix::net::UnixStream::connect(&plan.sockets.qmp) {
            break socket;
        }
        let ended = qemu.0.try_wait().unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "{name}: {ended:?}: {said}"
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut lines = BufReader::new(monitor.try_clone().unwrap()).lines();
    let mut answer = |text: &str| {
        monitor.write_all(text.as_bytes()).unwrap();
        let answers = lines.by_ref().map(Result::unwrap);
        let mut answers = answers.skip_while(|line| !line.starts_with("{\"return\""));
        answers.next().expect("an answer")
    };
    answer("{\"execute\":\"qmp_capabilities\"}");
    let status = answer("{\"execute\":\"query-status\"}");
    assert!(status.contains("\"prelaunch\""), "{status}");
    let nodes = answer("{\"execute\":\"query-named-block-nodes\"}");
    for disk in &plan.disks {
        assert!(nodes.contains(&format!("\"{}\"", disk.node)), "{nodes}");
    }
    let sockets = [&plan.sockets.serial, &plan.sockets.vnc];
    for path in sockets.into_iter().flatten() {
        assert!(path.exists(), "{}", path.display());
    }
    answer("{\"execute\":\"quit\"}");
    let status = qemu.0.wait().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{name}: {status}: {said}");
    assert_eq!(said, "", "{name}: QEMU warns");
}

#[test]
fn qemu_takes_the_typical_machine() {
    qemu_takes("typical");
}

#[test]
fn qemu_takes_the_smallest_machine() {
    qemu_takes("smallest");
}

#[test]
fn qemu_takes_a_machine_with_one_of_everything() {
    qemu_takes("everything");
}
