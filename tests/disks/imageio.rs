//! Disks of oVirt: from a real ovirt-imageio server over qemu-nbd, with a fake of the engine.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use longshore_importer::{
    BasicAuth, Checkpoint, ImageioDisk, ImageioError, SourceOptions, imageio_source,
};
use longshore_tests::imageio::{
    Answers, Behaviour, FakeEngine, Imageio, PASSWORD, USER, layers, shallow,
};
use longshore_tests::nbd::Server;
use longshore_tests::program::{have, importer, longshore, run, said, shell, signal};
use longshore_transfer::{
    Algorithm, Cancel, Checksum, Error, Hasher, Options, Progress, Report, Source, TargetSpec,
    transfer,
};

use super::{MIB, Place, chain, import_to, options, same};

pub(super) struct Rig {
    pub(super) place: Place,
    pub(super) engine: FakeEngine,
    _nbd: Server,
}

const SIZE: u64 = 64 * MIB;

impl Rig {
    /// A disk behind everything; `None` where something is not installed.
    pub(super) fn new(seed: u64, behaviour: Behaviour) -> Option<Self> {
        let place = Place::new();
        place.disk("in.raw", seed);
        Self::over(place, behaviour, |place| {
            Server::qemu("raw", &place.path("in.raw"))
        })
    }

    /// The top layer of a disk, `now.raw`, and what was imported of it before that was there.
    fn layered(seed: u64, answers: Answers) -> Option<Self> {
        if !have("qemu-img") {
            return None;
        }
        let place = Place::new();
        place.disk("base.raw", seed);
        std::fs::copy(place.path("base.raw"), place.path("out.raw")).unwrap();
        let changes = "-c 'write -P 7 1M 300k' -c 'write -z 20M 2M' \
            -c 'write -P 9 50M 1M' -c 'write -z 60M 64k'";
        layers(&place.path(""), changes);
        let behaviour = Behaviour {
            parent: Some("image-1"),
            answers,
            ..Behaviour::default()
        };
        Self::over(place, behaviour, |place| shallow(&place.path("")))
    }

    pub(super) fn over(
        place: Place,
        behaviour: Behaviour,
        nbd: impl FnOnce(&Place) -> Server,
    ) -> Option<Self> {
        if !have("qemu-nbd") || !have("qemu-img") {
            return None;
        }
        let imageio = Imageio::start()?;
        let nbd = nbd(&place);
        let engine = FakeEngine::start(imageio, &nbd, SIZE, behaviour);
        Some(Self {
            place,
            engine,
            _nbd: nbd,
        })
    }

    pub(super) fn disk(&self) -> ImageioDisk {
        let auth = BasicAuth {
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let mut disk = ImageioDisk::new(self.engine.api().parse().unwrap(), auth, "disk-1");
        disk.patience = Duration::from_secs(30);
        disk
    }

    /// Imports from a source to `out.raw`, which must become as the file `expected`.
    #[track_caller]
    pub(super) fn imports(&self, source: &mut dyn Source, expected: &str) -> Report {
        let out = self.place.path("out.raw");
        let report = import_to(source, &out).unwrap();
        same(&out, &self.place.path(expected));
        report
    }

    /// Waits for the engine to have been called like this so often.
    #[track_caller]
    pub(super) fn called(&self, call: &str, times: usize) {
        let until = Instant::now() + Duration::from_mins(1);
        while self.engine.count(call) < times {
            assert!(Instant::now() < until, "{:?}", self.engine.calls());
            pause();
        }
    }

    fn at(&self, checkpoint: Checkpoint) -> ImageioDisk {
        ImageioDisk {
            checkpoint: Some(checkpoint),
            ..self.disk()
        }
    }

    #[track_caller]
    pub(super) fn refused(disk: &ImageioDisk) -> ImageioError {
        match imageio_source(disk, &options()) {
            Err(longshore_importer::Error::Imageio { source, .. }) => source,
            Err(e) => panic!("{}", chain(&e)),
            Ok(_) => panic!("it opened"),
        }
    }

    /// How it was ended.
    #[track_caller]
    pub(super) fn ended(&self, how: &str) {
        let calls = self.engine.calls();
        assert_eq!(self.engine.count(&format!("/{how}")), 1, "{calls:?}");
        let other = if how == "cancel" {
            "/finalize"
        } else {
            "/cancel"
        };
        assert_eq!(self.engine.count(other), 0, "{calls:?}");
        assert!(self.engine.is_quiet(), "{calls:?}");
    }
}

#[test]
fn a_disk_is_read_without_its_zeros_and_the_transfer_finalized() {
    let behaviour = Behaviour {
        initializing: 2,
        locked: 2,
        ..Behaviour::default()
    };
    let Some(rig) = Rig::new(41, behaviour) else {
        return;
    };
    let mut source = imageio_source(&rig.disk(), &options()).unwrap();
    let report = rig.imports(source.as_mut(), "in.raw");
    assert!(report.bytes_read < 8 * MIB, "{report:?}");
    assert_eq!(
        rig.engine.count("/finalize"),
        0,
        "the source may be read again"
    );
    drop(source);
    rig.ended("finalize");
    let wanted = &rig.engine.wanted()[0];
    assert_eq!(wanted["format"], "raw");
    assert_eq!(wanted["direction"], "download");
    assert_eq!(wanted["image"]["id"], "disk-1");
    assert!(wanted.get("shallow").is_none());
}

#[test]
fn a_digest_is_that_of_the_whole_disk() {
    let Some(rig) = Rig::new(42, Behaviour::default()) else {
        return;
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&std::fs::read(rig.place.path("in.raw")).unwrap());
    for (hex, fits) in [(hasher.hex(), true), ("0".repeat(64), false)] {
        let mut source = imageio_source(&rig.disk(), &options()).unwrap();
        let with = Options {
            checksum: Some(Checksum {
                algorithm: Algorithm::Sha256,
                hex,
            }),
            ..Options::default()
        };
        let target = TargetSpec {
            path: rig.place.path("out.raw"),
            ..TargetSpec::default()
        };
        let (progress, cancel) = (Progress::default(), Cancel::default());
        let outcome = transfer(source.as_mut(), &target, &with, &progress, &cancel);
        assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
    }
    same(&rig.place.path("out.raw"), &rig.place.path("in.raw"));
}

#[test]
fn passwords_go_with_each_request_where_there_is_no_sign_on_and_the_proxy_is_second() {
    let behaviour = Behaviour {
        basic: true,
        only_proxy: true,
        ..Behaviour::default()
    };
    let Some(rig) = Rig::new(43, behaviour) else {
        return;
    };
    let mut source = imageio_source(&rig.disk(), &options()).unwrap();
    rig.imports(source.as_mut(), "in.raw");
    drop(source);
    rig.ended("finalize");
}

#[test]
fn wrong_passwords_are_told_in_the_engines_words_and_not_shown() {
    let Some(rig) = Rig::new(44, Behaviour::default()) else {
        return;
    };
    let mut disk = rig.disk();
    disk.auth.password = "wrong-secret".to_owned();
    let error = Rig::refused(&disk);
    let text = chain(&error);
    assert!(text.contains("Cannot authenticate user"), "{text}");
    assert!(!text.contains("wrong-secret"), "{text}");
    assert_eq!(rig.engine.count("imagetransfers"), 0);
}

#[test]
fn a_transfer_that_does_not_begin_is_cancelled() {
    for (phase, initializing) in [(Some("paused_system"), 0), (None, u32::MAX)] {
        let behaviour = Behaviour {
            phase,
            initializing,
            ..Behaviour::default()
        };
        let Some(rig) = Rig::new(45, behaviour) else {
            return;
        };
        let mut disk = rig.disk();
        disk.patience = Duration::from_millis(300);
        match (Rig::refused(&disk), phase) {
            (ImageioError::Phase { phase }, Some(expected)) => assert_eq!(phase, expected),
            (ImageioError::Slow { .. }, None) => {}
            (error, _) => panic!("{}", chain(&error)),
        }
        rig.ended("cancel");
    }
}

#[test]
fn a_source_that_is_not_read_to_its_end_is_cancelled() {
    let Some(rig) = Rig::new(46, Behaviour::default()) else {
        return;
    };
    // The target is no place to write to.
    let mut source = imageio_source(&rig.disk(), &options()).unwrap();
    let outcome = import_to(source.as_mut(), &rig.place.path("none/out.raw"));
    assert!(matches!(outcome, Err(Error::Target { .. })), "{outcome:?}");
    drop(source);
    rig.ended("cancel");
}

#[test]
fn a_ticket_that_is_gone_ends_the_import() {
    let Some(rig) = Rig::new(47, Behaviour::default()) else {
        return;
    };
    let mut source = imageio_source(&rig.disk(), &options()).unwrap();
    rig.revoke();
    let outcome = import_to(source.as_mut(), &rig.place.path("out.raw"));
    assert!(matches!(outcome, Err(Error::Source { .. })), "{outcome:?}");
    assert!(!rig.place.path("out.raw").exists());
}

impl Rig {
    /// Takes the ticket away, as an administrator can.
    fn revoke(&self) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--request", "POST", "--header"]);
        curl.arg("Authorization: Bearer a-token-of-the-fake");
        curl.arg(format!(
            "{}/imagetransfers/transfer%2D1/cancel",
            self.engine.api()
        ));
        run(&mut curl);
    }
}

/// Between two looks at something that comes when it comes.
pub(super) fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

fn snapshot(previous: Option<&str>) -> Checkpoint {
    Checkpoint::Snapshot {
        current: "image-2".to_owned(),
        previous: previous.map(str::to_owned),
    }
}

#[test]
fn a_snapshot_is_applied_over_the_one_before() {
    let Some(rig) = Rig::layered(48, Answers::Json) else {
        return;
    };
    let disk = rig.at(snapshot(Some("image-1")));
    let mut source = imageio_source(&disk, &options()).unwrap();
    assert!(source.changes_only());
    let report = rig.imports(source.as_mut(), "now.raw");
    assert!(report.bytes_read < 2 * MIB, "{report:?}");
    drop(source);
    rig.ended("finalize");
    let wanted = &rig.engine.wanted()[0];
    assert_eq!(wanted["snapshot"]["id"], "image-2");
    assert_eq!(wanted["shallow"], true);
    // On top of something else it is refused, before anything is begun.
    let other = rig.at(snapshot(Some("image-0")));
    assert!(matches!(
        Rig::refused(&other),
        ImageioError::OtherBase { .. }
    ));
    let missing = rig.at(Checkpoint::Snapshot {
        current: "image-3".to_owned(),
        previous: None,
    });
    assert!(matches!(
        Rig::refused(&missing),
        ImageioError::NoCheckpoint { .. }
    ));
    assert_eq!(rig.engine.wanted().len(), 1);
}

#[test]
fn the_first_snapshot_is_a_whole_disk_and_the_last_is_the_disk_itself() {
    let Some(rig) = Rig::new(49, Behaviour::default()) else {
        return;
    };
    for current in ["image-2", "image-9"] {
        let disk = rig.at(Checkpoint::Snapshot {
            current: current.to_owned(),
            previous: None,
        });
        let mut source = imageio_source(&disk, &options()).unwrap();
        rig.imports(source.as_mut(), "in.raw");
    }
    let wanted = rig.engine.wanted();
    assert_eq!(wanted[0]["snapshot"]["id"], "image-2");
    assert_eq!(wanted[1]["image"]["id"], "disk-1");
}

#[test]
fn dirty_extents_of_an_incremental_backup_are_applied() {
    let place = Place::new();
    if !have("qemu-img") {
        return;
    }
    place.disk("base.raw", 50);
    std::fs::copy(place.path("base.raw"), place.path("out.raw")).unwrap();
    let script = "qemu-img convert -O qcow2 base.raw disk.qcow2
        qemu-img bitmap --add disk.qcow2 backup
        qemu-io -f qcow2 -c 'write -P 7 1M 300k' -c 'write -z 20M 2M' -c 'write -P 9 50M 1M' disk.qcow2
        qemu-img convert -O raw disk.qcow2 now.raw";
    shell(&place.path(""), script);
    let bitmap = |place: &Place| {
        let image = place.path("disk.qcow2");
        Server::qemu_with(&["--format", "qcow2", "--bitmap", "backup"], &image)
    };
    let Some(rig) = Rig::over(place, Behaviour::default(), bitmap) else {
        return;
    };
    let backup = Checkpoint::Backup {
        backup: "backup-1".to_owned(),
    };
    let mut source = imageio_source(&rig.at(backup), &options()).unwrap();
    let report = rig.imports(source.as_mut(), "now.raw");
    assert!(report.bytes_read < 3 * MIB, "{report:?}");
    assert_eq!(rig.engine.wanted()[0]["backup"]["id"], "backup-1");
}

#[test]
fn a_transfer_that_waits_for_its_target_is_kept_alive() {
    let Some(rig) = Rig::new(51, Behaviour::default()) else {
        return;
    };
    let mut disk = rig.disk();
    disk.inactivity = Duration::from_secs(1);
    let source = imageio_source(&disk, &options()).unwrap();
    rig.called("/extend", 3);
    drop(source);
    rig.ended("cancel");
}

#[test]
fn the_command_imports_a_disk_and_lets_go_of_it_when_it_is_told_to_stop() {
    let Some(rig) = Rig::new(52, Behaviour::default()) else {
        return;
    };
    let url = format!(
        "imageio+http://admin%40internal@{}/disk-1",
        rig.engine.host()
    );
    let out = rig.place.path("out.raw");
    let command = || {
        let mut command = longshore();
        command.args(["import", &url]).arg(&out);
        command.env("LONGSHORE_PASSWORD", PASSWORD);
        command
    };
    let done = command().output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    same(&out, &rig.place.path("in.raw"));
    rig.ended("finalize");
}

#[test]
fn a_command_that_is_told_to_stop_cancels_its_transfer() {
    // It waits for a transfer that never begins.
    let behaviour = Behaviour {
        initializing: u32::MAX,
        ..Behaviour::default()
    };
    let Some(rig) = Rig::new(53, behaviour) else {
        return;
    };
    let url = format!(
        "imageio+http://admin%40internal@{}/disk-1",
        rig.engine.host()
    );
    let mut command = longshore();
    command
        .args(["import", &url])
        .arg(rig.place.path("out.raw"));
    command
        .env("LONGSHORE_PASSWORD", PASSWORD)
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    rig.called("GET /ovirt-engine/api/imagetransfers", 2);
    let ended = stopped(child);
    assert_eq!(ended.status.code(), Some(1), "{}", said(&ended));
    rig.ended("cancel");
}

#[test]
fn several_requests_are_under_way_but_no_more_than_the_server_allows() {
    let Some(rig) = Rig::new(54, Behaviour::default()) else {
        return;
    };
    // The server counts connections for a ticket itself, and refuses the ninth.
    let many = SourceOptions {
        connections: 16,
        ..options()
    };
    let mut source = imageio_source(&rig.disk(), &many).unwrap();
    rig.imports(source.as_mut(), "in.raw");
}

/// Tells a program to stop, and waits for its end.
pub(super) fn stopped(child: Child) -> Output {
    signal(&child, "TERM");
    child.wait_with_output().unwrap()
}

/// A pod's program for the rig's disk, which is to become `disk.img` in `data`.
pub(super) fn pod(rig: &Rig) -> Command {
    let path = |name: &str| rig.place.path(name);
    std::fs::create_dir_all(path("data")).unwrap();
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM").arg(importer());
    command
        .env("IMPORTER_SOURCE", "imageio")
        .env("IMPORTER_ENDPOINT", rig.engine.api())
        .env("IMPORTER_ACCESS_KEY_ID", USER)
        .env("IMPORTER_SECRET_KEY", PASSWORD)
        .env("IMPORTER_DISK_ID", "disk-1")
        .env("OWNER_UID", "the-owner")
        .env("LONGSHORE_DATA_DIR", path("data"))
        .env("LONGSHORE_BLOCK_DEVICE", path("no-device"))
        .env("LONGSHORE_TERMINATION_LOG", path("log"))
        .env("LONGSHORE_METRICS_ADDRESS", "127.0.0.1:0");
    command
}

#[test]
fn a_pod_copies_one_snapshot_and_another_pod_the_next_one_over_it() {
    // Some engines, and upstream's fake of one, speak XML whatever they are asked for.
    let Some(rig) = Rig::layered(55, Answers::Xml) else {
        return;
    };
    let mut command = pod(&rig);
    let disk = rig.place.path("data/disk.img");
    // What the first pod has left.
    std::fs::copy(rig.place.path("base.raw"), &disk).unwrap();
    command
        .env("IMPORTER_CURRENT_CHECKPOINT", "image-2")
        .env("IMPORTER_PREVIOUS_CHECKPOINT", "image-1")
        .env("IMPORTER_FINAL_CHECKPOINT", "true");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    same(&disk, &rig.place.path("now.raw"));
    rig.ended("finalize");
    let log = std::fs::read_to_string(rig.place.path("log")).unwrap();
    assert!(
        log.contains("Import Complete") && !log.contains(PASSWORD),
        "{log}"
    );
}

#[test]
fn a_transfer_that_begins_with_its_address_is_not_looked_at() {
    for answers in [Answers::Json, Answers::Xml] {
        let behaviour = Behaviour {
            at_once: true,
            answers,
            ..Behaviour::default()
        };
        let Some(rig) = Rig::new(58, behaviour) else {
            return;
        };
        let mut pod = pod(&rig);
        let done = pod.env("IMPORTER_IMAGE_SIZE", "64Mi").output().unwrap();
        assert!(done.status.success(), "{}", said(&done));
        same(&rig.place.path("data/disk.img"), &rig.place.path("in.raw"));
        assert_eq!(rig.engine.count("GET "), 0, "{:?}", rig.engine.calls());
        rig.ended("finalize");
    }
}

#[test]
fn what_an_engine_refuses_in_xml_is_told_in_its_words() {
    let behaviour = Behaviour {
        answers: Answers::Xml,
        locked: u32::MAX,
        ..Behaviour::default()
    };
    let Some(rig) = Rig::new(59, behaviour) else {
        return;
    };
    let mut disk = rig.disk();
    disk.patience = Duration::from_millis(1);
    let text = chain(&Rig::refused(&disk));
    assert!(text.contains("Disk is locked"), "{text}");
}

#[test]
fn a_pod_that_is_deleted_cancels_its_transfer() {
    let behaviour = Behaviour {
        initializing: u32::MAX,
        ..Behaviour::default()
    };
    let Some(rig) = Rig::new(56, behaviour) else {
        return;
    };
    let child = pod(&rig).stderr(Stdio::piped()).spawn().unwrap();
    rig.called("GET /ovirt-engine/api/imagetransfers", 2);
    let ended = stopped(child);
    assert!(!ended.status.success(), "{}", said(&ended));
    assert!(!said(&ended).contains(PASSWORD), "{}", said(&ended));
    rig.ended("cancel");
}

#[test]
fn a_snapshot_is_gone_on_with_and_the_disk_itself_is_not() {
    let Some(rig) = Rig::new(57, Behaviour::default()) else {
        return;
    };
    let out = rig.place.path("out.raw");
    // The last is the disk as it is, under the name of a snapshot to come.
    for (current, goes_on) in [("image-2", true), ("image-9", false)] {
        let disk = rig.at(Checkpoint::Snapshot {
            current: current.to_owned(),
            previous: None,
        });
        let open = || imageio_source(&disk, &options()).unwrap();
        let report = super::resume::cut_and_made(open, &out);
        same(&out, &rig.place.path("in.raw"));
        assert_eq!(report.bytes_resumed > 0, goes_on, "{report:?}");
        assert_eq!(report.bytes_read < 4 * MIB, goes_on, "{report:?}");
    }
}
