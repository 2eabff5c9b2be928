//! What vSphere is asked for before and while a disk is read: govmomi's simulator, whose changed block
//! tracking is a fake of ours. The bytes come from nbdkit with the stand-in of `vddk`.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use longshore_crds::contract::Termination;
use longshore_importer::{HttpError, Retry, SourceOptions, VddkError, VsphereError, vddk_source};
use longshore_tests::data;
use longshore_tests::gate::{Gate, Reply};
use longshore_tests::http::Authority;
use longshore_tests::program::{have, importer, longshore, said};
use longshore_tests::vsphere::{PASSWORD, Simulator, USER};

use super::vddk::Stand;
use super::{MIB, chain, import_to, options, same};

const SIZE: u64 = 8 * MIB;

/// A machine with three snapshots of its disk, which differ in several places.
struct Farm {
    stand: Stand,
    simulator: Simulator,
}

impl Farm {
    fn new(seed: u64) -> Option<Self> {
        if !have("nbdkit") {
            return None;
        }
        let mut stand = Stand::new(seed, "", "");
        let folder = stand.place.path("disks");
        std::fs::create_dir(&folder).unwrap();
        let at = |n: usize| folder.join(format!("{n}.raw"));
        let first = std::fs::File::create(at(1)).unwrap();
        first.set_len(SIZE).unwrap();
        let bytes = data::disk(3 << 20, seed);
        first.write_all_at(&bytes, MIB).unwrap();
        let change = |from: usize, parts: &[(u64, &[u8])]| {
            std::fs::copy(at(from), at(from + 1)).unwrap();
            let file = std::fs::File::options().write(true).open(at(from + 1));
            let file = file.unwrap();
            for (offset, bytes) in parts {
                file.write_all_at(bytes, *offset).unwrap();
            }
        };
        let fresh = data::disk(1 << 20, seed + 1000);
        // More places than the fake tells in one answer; data where there was none, and none where there was.
        change(
            1,
            &[
                (0, &fresh[..512]),
                (MIB + 70_000, &fresh[..100]),
                (2 * MIB, &vec![0; 300_000]),
                (3 * MIB - 10, &fresh[..20]),
                (5 * MIB, &fresh),
                (SIZE - 512, &fresh[..512]),
            ],
        );
        change(2, &[(5 * MIB + 1, b"again"), (7 * MIB, &fresh[..200_000])]);
        let simulator = Simulator::start(&folder)?;
        std::fs::create_dir(stand.place.path("states")).unwrap();
        for n in 1..=3 {
            let state = format!("states/{}", simulator.snapshot(n));
            std::os::unix::fs::symlink(at(n), stand.place.path(&state)).unwrap();
        }
        "127.0.0.1".clone_into(&mut stand.disk.server);
        stand.disk.port = Some(simulator.port());
        stand.disk.thumbprint = Some(simulator.thumbprint().to_owned());
        simulator.uuid().clone_into(&mut stand.disk.vm);
        simulator.file().clone_into(&mut stand.disk.file);
        Some(Self { stand, simulator })
    }

    fn state(&self, n: usize) -> std::path::PathBuf {
        self.stand.place.path(&format!("disks/{n}.raw"))
    }

    /// Reads the disk as it is at a snapshot, or what changed up to it.
    fn copy(&mut self, current: &str, previous: Option<&str>) -> longshore_transfer::Report {
        self.stand.disk.snapshot = Some(current.to_owned());
        self.stand.disk.previous = previous.map(str::to_owned);
        let mut source = match vddk_source(&self.stand.disk, None, &options()) {
            Ok(source) => source,
            Err(e) => panic!("{}", chain(&e)),
        };
        assert_eq!(source.changes_only(), previous.is_some());
        match import_to(source.as_mut(), &self.stand.out()) {
            Ok(report) => report,
            Err(e) => panic!("{}", chain(&e)),
        }
    }

    #[track_caller]
    fn called(&self, argument: &str) {
        let called = self.stand.read("called");
        assert!(called.lines().any(|line| line == argument), "{called}");
    }

    /// Every session was ended.
    #[track_caller]
    fn is_left(&self, sessions: u64) {
        let count = |method| self.simulator.calls(method);
        assert_eq!((count("Login"), count("Logout")), (sessions, sessions));
    }

    #[track_caller]
    fn refused(&self) -> VsphereError {
        match self.stand.refused(&options()) {
            VddkError::Vsphere(error) => error,
            other => panic!("{}", chain(&other)),
        }
    }
}

#[test]
fn a_copy_and_two_deltas_make_the_disk_of_the_last_checkpoint() {
    let Some(mut farm) = Farm::new(41) else {
        return;
    };
    let snapshots: Vec<_> = (1..=3)
        .map(|n| farm.simulator.snapshot(n).to_owned())
        .collect();
    farm.copy(&snapshots[0], None);
    same(&farm.stand.out(), &farm.state(1));
    farm.called(&format!("vm=moref={}", farm.simulator.machine()));
    farm.called(&format!("file={}", farm.simulator.file()));
    farm.called(&format!("snapshot={}", snapshots[0]));
    assert_eq!(farm.simulator.calls("QueryChangedDiskAreas"), 0);
    // By the earlier snapshot: its changeId is looked up.
    let report = farm.copy(&snapshots[1], Some(&snapshots[0]));
    same(&farm.stand.out(), &farm.state(2));
    farm.called(&format!("file={}", farm.simulator.file_in(2)));
    assert!(report.bytes_read < 2 * MIB, "{report:?}");
    let asked = farm.simulator.calls("QueryChangedDiskAreas");
    assert!(asked >= 2, "{asked} answers");
    // By the changeId, as those do it who have removed the earlier snapshot; and by a snapshot's name.
    let change = farm.simulator.change(2);
    let report = farm.copy("state 3", Some(&change));
    same(&farm.stand.out(), &farm.state(3));
    farm.called(&format!("snapshot={}", snapshots[2]));
    farm.called(&format!("file={}", farm.simulator.file_in(3)));
    assert!(report.bytes_read < MIB, "{report:?}");
    // From the first to the last at once.
    farm.copy(&snapshots[0], None);
    farm.copy(&snapshots[2], Some(&snapshots[0]));
    same(&farm.stand.out(), &farm.state(3));
    farm.is_left(5);
    farm.stand.is_gone();
}

#[test]
fn a_machine_is_found_by_either_uuid_and_a_disk_by_any_of_its_files() {
    let Some(mut farm) = Farm::new(42) else {
        return;
    };
    let last = farm.simulator.snapshot(3).to_owned();
    for machine in [farm.simulator.instance_uuid(), farm.simulator.uuid()] {
        farm.stand.disk.vm = machine.to_owned();
        for file in 1..=3 {
            farm.stand.disk.file = farm.simulator.file_in(file);
            drop(vddk_source(
                &longshore_importer::VddkDisk {
                    snapshot: Some(last.clone()),
                    ..farm.stand.disk.clone()
                },
                None,
                &options(),
            ));
            farm.called(&format!("file={}", farm.simulator.file_in(3)));
        }
    }
    farm.stand.disk.thumbprint = Some(farm.simulator.long_thumbprint().to_owned());
    farm.copy(&last, None);
    same(&farm.stand.out(), &farm.state(3));
    farm.is_left(7);
}

#[test]
fn a_session_that_runs_out_in_the_middle_is_begun_again() {
    let Some(mut farm) = Farm::new(43) else {
        return;
    };
    std::fs::copy(farm.state(1), farm.stand.out()).unwrap();
    farm.stand.disk.snapshot = Some(farm.simulator.snapshot(2).to_owned());
    farm.stand.disk.previous = Some(farm.simulator.change(1));
    let mut source = vddk_source(&farm.stand.disk, None, &options()).unwrap();
    // All is looked up, and no change asked for yet.
    farm.simulator.expire();
    import_to(source.as_mut(), &farm.stand.out()).unwrap();
    same(&farm.stand.out(), &farm.state(2));
    drop(source);
    assert_eq!(farm.simulator.calls("Login"), 2);
    assert_eq!(farm.simulator.calls("Logout"), 1);
}

#[test]
fn what_vsphere_refuses_is_told_and_the_session_left() {
    let Some(mut farm) = Farm::new(44) else {
        return;
    };
    let disk = farm.stand.disk.clone();
    farm.stand.disk.vm = "63d40cc5-0000-0000-0000-f7f19070ecea".to_owned();
    let error = farm.refused();
    assert!(matches!(error, VsphereError::NoMachine { .. }), "{error}");
    assert_eq!(error.reason(), "NotFound");

    farm.stand.disk.vm.clone_from(&disk.vm);
    farm.stand.disk.file = "[LocalDS_0] other/disk1.vmdk".to_owned();
    let error = farm.refused();
    assert!(matches!(error, VsphereError::NoDisk { .. }), "{error}");
    assert!(
        error.to_string().contains(&farm.simulator.file_in(4)),
        "{error}"
    );

    farm.stand.disk = disk.clone();
    farm.stand.disk.snapshot = Some("snapshot-999".to_owned());
    let error = farm.refused();
    assert!(matches!(error, VsphereError::NoSnapshot { .. }), "{error}");
    assert_eq!(error.reason(), "NoSuchCheckpoint");

    farm.stand.disk = disk.clone();
    farm.simulator
        .fail("RetrievePropertiesEx", "NoPermission", 1);
    let error = farm.refused();
    assert_eq!(error.retry(), Retry::Unauthorized);
    assert!(
        error
            .to_string()
            .contains("VirtualMachine.Provisioning.DiskRandomRead"),
        "{error}"
    );
    farm.is_left(4);

    farm.stand.disk.auth.password = "wrong sesame".to_owned();
    let error = farm.refused();
    assert!(
        matches!(&error, VsphereError::Refused { fault, .. } if fault == "InvalidLogin"),
        "{error}"
    );
    assert_eq!(error.reason(), "Unauthorized");
    assert!(!chain(&error).contains("sesame"), "{}", chain(&error));
    // There was no session, so none is ended.
    assert_eq!(farm.simulator.calls("Logout"), 4);
}

#[test]
fn a_query_of_changes_that_fails_ends_the_copy_and_the_session() {
    let Some(mut farm) = Farm::new(45) else {
        return;
    };
    std::fs::copy(farm.state(1), farm.stand.out()).unwrap();
    farm.stand.disk.snapshot = Some(farm.simulator.snapshot(2).to_owned());
    for (previous, fault) in [
        (farm.simulator.change(9), "FileFault"),
        ("01 02-03/1".to_owned(), "InvalidArgument"),
    ] {
        farm.stand.disk.previous = Some(previous);
        let mut source = vddk_source(&farm.stand.disk, None, &options()).unwrap();
        let error = import_to(source.as_mut(), &farm.stand.out()).unwrap_err();
        let text = chain(&error);
        assert!(
            text.contains(fault) && text.contains("copy the whole disk"),
            "{text}"
        );
    }
    farm.is_left(2);
    farm.stand.is_gone();
}

#[test]
fn a_certificate_must_have_the_thumbprint_and_without_one_be_trusted() {
    let Some(mut farm) = Farm::new(46) else {
        return;
    };
    let tls = |error: VsphereError| match error {
        VsphereError::Http {
            source: HttpError::Tls { source, .. },
            ..
        } => source.to_string(),
        other => panic!("{}", chain(&other)),
    };
    farm.stand.disk.thumbprint =
        Some("00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33".into());
    let why = tls(farm.refused());
    assert!(why.contains("and not 00:11:22:33:44"), "{why}");
    farm.stand.disk.thumbprint = None;
    tls(farm.refused());
    // Whoever says that anybody will do gets anybody.
    farm.stand.disk.snapshot = Some("state 1".into());
    let anybody = SourceOptions {
        insecure: true,
        ..options()
    };
    drop(vddk_source(&farm.stand.disk, None, &anybody).unwrap());
    farm.stand.disk.thumbprint = Some("AA:BB".into());
    let error = farm.stand.refused(&options());
    assert!(matches!(error, VddkError::Value { .. }), "{error}");
    farm.is_left(1);
}

#[test]
fn servers_that_are_no_vsphere_are_refused_in_bounded_time_and_memory() {
    let Some(mut farm) = Farm::new(47) else {
        return;
    };
    let authority = Authority::new();
    let ca = farm.stand.place.path("ca.pem");
    authority.write(&ca);
    let trusting = SourceOptions {
        ca: vec![ca],
        retries: 1,
        ..options()
    };
    farm.stand.disk.thumbprint = None;
    let bomb = "<!DOCTYPE a [<!ENTITY b \"b\">]><a>&b;</a>";
    let pages = [
        (
            "<html><body>Welcome</body></html>".to_owned(),
            "makes no sense",
        ),
        (bomb.to_owned(), "type of document"),
        (" ".repeat(9 << 20), "goes on after byte 8388608"),
        ("<a>".repeat(1_000_000), "nested too deeply"),
        ("<a/>".repeat(1_000_000), "too many elements"),
    ];
    for (body, expected) in pages {
        let server = Gate::listen(None, Some(&authority), move |_, _| {
            Reply::say(200, body.clone())
        });
        farm.stand.disk.port = Some(server.address().port());
        let error = farm.stand.refused(&trusting);
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    }
}

#[test]
fn the_command_takes_a_uuid_and_applies_what_changed() {
    let Some(farm) = Farm::new(48) else {
        return;
    };
    let path = farm.stand.path();
    let run = |more: &str| {
        let url = format!(
            "vddk://{}@{}/?uuid={}&file={}&thumbprint={}&libdir={}&{more}",
            USER.replace('@', "%40"),
            farm.simulator.address,
            farm.simulator.uuid(),
            farm.simulator.file(),
            farm.simulator.thumbprint(),
            farm.stand.disk.libdir.display(),
        );
        let mut command = longshore();
        command.args(["import", &url]).arg(farm.stand.out());
        command
            .env("PATH", &path)
            .env("LONGSHORE_PASSWORD", PASSWORD);
        command.output().unwrap()
    };
    let done = run(&format!("snapshot={}", farm.simulator.snapshot(1)));
    assert!(done.status.success(), "{}", said(&done));
    same(&farm.stand.out(), &farm.state(1));
    let done = run("snapshot=state 3&previous=state 1");
    assert!(done.status.success(), "{}", said(&done));
    same(&farm.stand.out(), &farm.state(3));
    let done = run("snapshot=state 4");
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    assert!(
        said(&done).contains("no snapshot state 4"),
        "{}",
        said(&done)
    );
    farm.is_left(3);
}

#[test]
fn a_pod_for_each_checkpoint_makes_the_disk() {
    let Some(farm) = Farm::new(49) else {
        return;
    };
    let path = farm.stand.path();
    let data = farm.stand.place.path("data");
    std::fs::create_dir(&data).unwrap();
    let log = farm.stand.place.path("termination-log");
    let none = farm.stand.place.path("none");
    let settings = farm.stand.place.path("settings");
    std::fs::write(&settings, format!("a.b=16\n\nc={PASSWORD}\nd.e=4")).unwrap();
    // It warns of something, and prints something past nbdkit.
    let how = std::fs::read_to_string(farm.stand.place.path("how")).unwrap();
    let how = format!("{how}\necho 'nbdkit: warning: no vSphere' >&2\necho 'a cookie' >&2\n");
    std::fs::write(farm.stand.place.path("how"), how).unwrap();
    let run = |checkpoint: &[(&str, &str)]| {
        let mut command = Command::new(importer());
        command.env_clear().env("PATH", &path);
        let place = |path: &Path| path.to_str().unwrap().to_owned();
        command.envs([
            ("IMPORTER_SOURCE", "vddk".to_owned()),
            (
                "IMPORTER_ENDPOINT",
                format!("https://{}", farm.simulator.address),
            ),
            ("IMPORTER_UUID", farm.simulator.uuid().to_owned()),
            ("IMPORTER_BACKING_FILE", farm.simulator.file().to_owned()),
            (
                "IMPORTER_THUMBPRINT",
                farm.simulator.thumbprint().to_owned(),
            ),
            ("IMPORTER_VDDK_DIR", place(&farm.stand.disk.libdir)),
            ("IMPORTER_VDDK_ARGS_FILE", place(&settings)),
            ("IMPORTER_ACCESS_KEY_ID", USER.to_owned()),
            ("IMPORTER_SECRET_KEY", PASSWORD.to_owned()),
            ("IMPORTER_IMAGE_SIZE", "8Mi".to_owned()),
            ("LONGSHORE_DATA_DIR", place(&data)),
            ("LONGSHORE_BLOCK_DEVICE", place(&none)),
            ("LONGSHORE_TERMINATION_LOG", place(&log)),
            ("LONGSHORE_METRICS_ADDRESS", "127.0.0.1:0".to_owned()),
        ]);
        command.envs(checkpoint.iter().copied());
        let output = command.output().unwrap();
        let end = std::fs::read_to_string(&log).unwrap();
        assert!(!said(&output).contains("sesame") && !end.contains("sesame"));
        let log = said(&output);
        for wanted in [
            "a.b=16",
            "c=***",
            "d.e=4",
            "Log line from nbdkit: nbdkit: warning: no vSphere",
        ] {
            assert!(log.contains(wanted), "{wanted}: {log}");
        }
        assert!(
            !log.contains("debug: ") && !log.contains("a cookie"),
            "{log}"
        );
        (output, Termination::parse(&end).unwrap())
    };
    let names: Vec<_> = (1..=3).map(|n| farm.simulator.snapshot(n)).collect();
    let change = farm.simulator.change(2);
    let steps = [
        vec![("IMPORTER_CURRENT_CHECKPOINT", names[0])],
        vec![
            ("IMPORTER_CURRENT_CHECKPOINT", names[1]),
            ("IMPORTER_PREVIOUS_CHECKPOINT", names[0]),
        ],
        vec![
            ("IMPORTER_CURRENT_CHECKPOINT", names[2]),
            ("IMPORTER_PREVIOUS_CHECKPOINT", &change),
            ("IMPORTER_FINAL_CHECKPOINT", "true"),
        ],
    ];
    for (n, step) in steps.iter().enumerate() {
        let (output, end) = run(step);
        assert!(output.status.success(), "{}", said(&output));
        same(&data.join("disk.img"), &farm.state(n + 1));
        assert_eq!(end.virtual_size, Some(SIZE), "{end:?}");
        // As the library told in its log.
        let info = end.vddk_info.unwrap();
        assert_eq!(info.version, "7.0.3");
        assert_eq!(info.host, "esx1.example.org");
    }
    farm.is_left(3);
}
