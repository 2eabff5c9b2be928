//! Disks of VMware machines. VMware's library and nbdkit's plugin for it are not to be had: a script named
//! `nbdkit` takes the arguments meant for them, and starts nbdkit with its file plugin instead.

use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use longshore_importer::{
    BasicAuth, ChangedBlocks, Changes, NbdError, SourceOptions, VddkDisk, VddkError, vddk_source,
};
use longshore_tests::eventually;
use longshore_tests::program::{fed, have, longshore, said};
use longshore_tests::vsphere::{PASSWORD, USER};

use super::{MIB, Place, chain, import_to, options, same};

/// Takes the arguments apart as the plugin would, and refuses what it would refuse. What it was called with
/// is in `called`; `$FILTER` and `$MORE` are for nbdkit. What a snapshot has is in `states`, if it is there.
const STAND_IN: &str = r#"#!/bin/sh
here=$(dirname "$0")
printf '%s\n' "$@" > "$here/called"
env > "$here/environment"
args= disk= password= plugin= snapshot=
for arg; do
  case "$arg" in
    vddk|*/libvddk-test-plugin.so) plugin=yes ;;
    file=*) disk=${arg#file=} ;;
    password=+*) read -r password < "${arg#password=+}" ;;
    snapshot=*) snapshot=${arg#snapshot=} ;;
    server=*|user=*|vm=moref=*|thumbprint=*|transports=*|compression=*|libdir=*|port=*|config=*) ;;
    -Dvddk.*) ;;
    -*) args="$args $arg" ;;
    *=*) echo "nbdkit: error: unknown parameter $arg" >&2; exit 1 ;;
    *) args="$args $arg" ;;
  esac
done
test "$plugin" = yes || exit 1
if test "$password" != "open <&> sesame"; then
  echo "nbdkit: vddk[1]: error: login with password $password failed" >&2
  exit 1
fi
echo "nbdkit: debug: VMware VixDiskLib (7.0.3) Release build-18705163" >&2
echo "nbdkit: vddk[1]: debug: DISKLIB-LINK  : Opened 'vpxa-nfcssl://$disk@esx1.example.org:902' (0xa): custom" >&2
. "$here/how"
echo $$ > "$here/running"
served=$here/$disk
if test -n "$snapshot" -a -e "$here/states/$snapshot"; then served=$here/states/$snapshot; fi
exec nbdkit $args $FILTER file "$served" $MORE
"#;

/// Makes a script that can be started. Somebody else writes it: a program that another test starts meanwhile would
/// have the file open for writing for a moment, if we had, and then nobody can start it.
fn program_at(path: &Path, script: &str) {
    let mut write = Command::new("sh");
    write
        .args(["-ec", "cat > \"$0\"; chmod 755 \"$0\""])
        .arg(path);
    let output = fed(&mut write, script.as_bytes());
    assert!(output.status.success(), "{}", said(&output));
}

pub(super) struct Stand {
    pub(super) place: Place,
    pub(super) disk: VddkDisk,
}

impl Stand {
    /// A disk behind a stand-in for the plugin, with these filters and parameters of nbdkit.
    pub(super) fn new(seed: u64, filter: &str, more: &str) -> Self {
        let place = Place::new();
        place.disk("web.vmdk", seed);
        let nbdkit = place.path("nbdkit");
        program_at(&nbdkit, STAND_IN);
        let how = format!("FILTER='{filter}'\nMORE='{more}'\n");
        std::fs::write(place.path("how"), how).unwrap();
        let library = place.path("vddk/lib64");
        std::fs::create_dir_all(&library).unwrap();
        std::fs::write(library.join("libvixDiskLib.so.8"), "not really").unwrap();
        let auth = BasicAuth {
            user: USER.into(),
            password: PASSWORD.into(),
        };
        let mut disk = VddkDisk::new("vcenter.example.org", auth, "vm-9", "web.vmdk");
        disk.nbdkit = nbdkit;
        disk.libdir = place.path("vddk");
        disk.thumbprint = Some("AA:BB:CC".into());
        Self { place, disk }
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.path(name)).unwrap()
    }

    pub(super) fn out(&self) -> PathBuf {
        self.place.path("out.raw")
    }

    /// A `PATH` with the stand-in in front, which leaves itself out when it starts the real nbdkit.
    pub(super) fn path(&self) -> String {
        std::fs::create_dir(self.place.path("bin")).unwrap();
        let real = Command::new("sh")
            .args(["-c", "command -v nbdkit"])
            .output()
            .unwrap();
        let real = String::from_utf8(real.stdout).unwrap();
        let script = format!(
            "#!/bin/sh\nsed 's#exec nbdkit#exec {}#' {1}/nbdkit > {1}/real && chmod +x {1}/real && exec {1}/real \"$@\"\n",
            real.trim(),
            self.place.path("").display()
        );
        let shim = self.place.path("bin/nbdkit");
        program_at(&shim, &script);
        let path = std::env::var("PATH").unwrap();
        format!("{}:{path}", self.place.path("bin").display())
    }

    #[track_caller]
    pub(super) fn refused(&self, options: &SourceOptions) -> VddkError {
        match vddk_source(&self.disk, None, options) {
            Err(longshore_importer::Error::Vddk { source, .. }) => source,
            Err(e) => panic!("{}", chain(&e)),
            Ok(_) => panic!("it opened"),
        }
    }

    /// The stand-in became an nbdkit, which has ended.
    #[track_caller]
    pub(super) fn is_gone(&self) {
        let pid = self.read("running");
        let alive = PathBuf::from("/proc").join(pid.trim()).join("fd");
        assert!(!alive.exists(), "nbdkit {} still runs", pid.trim());
    }
}

#[test]
fn a_disk_is_read_through_nbdkit_which_ends_with_the_source() {
    if !have("nbdkit") {
        return;
    }
    let mut stand = Stand::new(21, "", "");
    stand.disk.snapshot = Some("snapshot-7".into());
    stand.disk.transports = Some("nbdssl:nbd".into());
    stand.disk.compression = Some("fastlz".into());
    let mut source = vddk_source(&stand.disk, None, &options()).unwrap();
    assert_eq!(source.name(), "vddk://vcenter.example.org/vm-9/web.vmdk");
    let report = import_to(source.as_mut(), &stand.out()).unwrap();
    same(&stand.out(), &stand.place.path("web.vmdk"));
    assert!(report.bytes_read < 8 * MIB, "{report:?}");
    let called = stand.read("called");
    for argument in [
        "vddk",
        "server=vcenter.example.org",
        "user=administrator@vsphere.local",
        "vm=moref=vm-9",
        "file=web.vmdk",
        "thumbprint=AA:BB:CC",
        "snapshot=snapshot-7",
        "transports=nbdssl:nbd",
        "compression=fastlz",
        "--exit-with-parent",
        "--readonly",
    ] {
        assert!(
            called.lines().any(|line| line == argument),
            "{argument}: {called}"
        );
    }
    // The password went by a pipe in a directory of its own, which was taken away again.
    assert!(!called.contains("sesame"), "{called}");
    assert!(!stand.read("environment").contains("sesame"));
    let password = called
        .lines()
        .find_map(|line| line.strip_prefix("password=+"));
    let password = PathBuf::from(password.unwrap());
    let directory = password.parent().unwrap();
    assert!(!password.exists() && directory.exists());
    let mode = directory.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(source);
    assert!(!directory.exists());
    stand.is_gone();
}

#[test]
fn the_plugin_of_upstreams_tests_is_told_what_it_counts_and_needs_no_library() {
    if !have("nbdkit") {
        return;
    }
    let mut stand = Stand::new(33, "", "");
    let plugin = stand.place.path("libvddk-test-plugin.so");
    stand.disk.plugin = Some(plugin.clone());
    stand.disk.libdir = stand.place.path("nothing");
    stand.disk.port = Some(8989);
    let told = || {
        let called = stand.read("called");
        assert!(
            called.lines().any(|line| Path::new(line) == plugin),
            "{called}"
        );
        let told = called
            .lines()
            .filter(|line| line.contains('=') && !line.starts_with('-'));
        told.map(str::to_owned).collect::<Vec<_>>()
    };
    let import = |disk: &VddkDisk| {
        let mut source = vddk_source(disk, None, &options()).unwrap();
        import_to(source.as_mut(), &stand.out()).unwrap();
        same(&stand.out(), &stand.place.path("web.vmdk"));
    };
    let mut disk = stand.disk.clone();
    import(&disk);
    let plain = told();
    assert_eq!(plain.len(), 7, "{plain:?}");
    let server = "server=vcenter.example.org:8989".to_owned();
    assert!(plain.contains(&server), "{plain:?}");
    // Two more of a snapshot, and one of a configuration.
    disk.snapshot = Some("snapshot-7".into());
    import(&disk);
    let of_snapshot = told();
    assert_eq!(of_snapshot.len(), 9, "{of_snapshot:?}");
    let transports = "transports=file:nbdssl:nbd".to_owned();
    assert!(of_snapshot.contains(&transports), "{of_snapshot:?}");
    disk.snapshot = None;
    disk.config = Some(stand.place.path("none"));
    import(&disk);
    assert_eq!(told().len(), 8, "{:?}", told());
}

/// Changes that are known beforehand, told a few at a time.
struct Known(Vec<std::ops::Range<u64>>);

impl ChangedBlocks for Known {
    fn changes(
        &mut self,
        from: u64,
    ) -> Result<Changes, Box<dyn std::error::Error + Send + Sync + 'static>> {
        let rest: Vec<_> = self
            .0
            .iter()
            .filter(|range| range.start >= from)
            .cloned()
            .collect();
        let changed: Vec<_> = rest.iter().take(2).cloned().collect();
        let until = match changed.last() {
            Some(last) if rest.len() > 2 => last.end,
            _ => 64 * MIB,
        };
        Ok(Changes { until, changed })
    }
}

#[test]
fn changes_between_checkpoints_are_read_and_applied_in_place() {
    if !have("nbdkit") {
        return;
    }
    let stand = Stand::new(22, "", "");
    // What was imported before, and what was changed since.
    let out = stand.out();
    std::fs::copy(stand.place.path("web.vmdk"), &out).unwrap();
    let now = std::fs::File::options()
        .write(true)
        .open(stand.place.path("web.vmdk"))
        .unwrap();
    let fresh = longshore_tests::data::disk(3 << 20, 99);
    now.write_all_at(&fresh[..100_000], 5 * MIB).unwrap();
    now.write_all_at(&fresh, 40 * MIB).unwrap();
    now.write_all_at(&fresh[..512], 64 * MIB - 512).unwrap();
    // Data that is no more.
    now.write_all_at(&vec![0; 1 << 20], 21 * MIB).unwrap();
    drop(now);
    let changes = vec![
        5 * MIB..5 * MIB + 131_072,
        21 * MIB..22 * MIB,
        // Nothing was there, and nothing is.
        30 * MIB..32 * MIB,
        40 * MIB..43 * MIB,
        64 * MIB - 512..64 * MIB,
    ];
    let mut source = vddk_source(&stand.disk, Some(Box::new(Known(changes))), &options()).unwrap();
    assert!(source.changes_only());
    let report = import_to(source.as_mut(), &out).unwrap();
    same(&out, &stand.place.path("web.vmdk"));
    let most = 131_072 + MIB + 3 * MIB + 4096;
    assert!(report.bytes_read <= most, "{report:?}");
    // Asked a second time it would be nothing at all.
    let again = import_to(source.as_mut(), &out);
    assert!(matches!(
        again,
        Err(longshore_transfer::Error::Source { .. })
    ));
}

#[test]
fn changes_of_what_was_never_imported_are_refused() {
    if !have("nbdkit") {
        return;
    }
    let stand = Stand::new(23, "", "");
    let changes = Box::new(Known(Vec::new()));
    let mut source = vddk_source(&stand.disk, Some(changes), &options()).unwrap();
    let refused = import_to(source.as_mut(), &stand.out());
    assert!(matches!(
        refused,
        Err(longshore_transfer::Error::Target { .. })
    ));
    assert!(!stand.out().exists());
}

#[test]
fn a_slow_and_failing_plugin_is_put_up_with() {
    if !have("nbdkit") {
        return;
    }
    let filter = "--filter=delay --filter=error";
    let stand = Stand::new(24, filter, "rdelay=5ms error-pread-rate=20%");
    let mut source = vddk_source(&stand.disk, None, &options()).unwrap();
    import_to(source.as_mut(), &stand.out()).unwrap();
    same(&stand.out(), &stand.place.path("web.vmdk"));
}

#[test]
fn what_is_missing_is_said_by_name_and_awaited() {
    if !have("nbdkit") {
        return;
    }
    let mut stand = Stand::new(25, "", "");
    let library = std::mem::replace(&mut stand.disk.libdir, stand.place.path("nothing"));
    let error = stand.refused(&options());
    assert!(matches!(error, VddkError::NoLibrary { .. }), "{error}");
    assert_eq!(error.reason(), "AwaitingVDDK");
    stand.disk.libdir = library;
    // The real nbdkit, which has no such plugin (or one that refuses what is no library).
    stand.disk.nbdkit = "nbdkit".into();
    let error = stand.refused(&options());
    let known = matches!(error, VddkError::NoPlugin { .. } | VddkError::Ended { .. });
    assert!(known, "{error}");
    stand.disk.nbdkit = stand.place.path("none");
    let error = stand.refused(&options());
    assert!(matches!(error, VddkError::NoNbdkit { .. }), "{error}");
    assert_eq!(error.reason(), "AwaitingVDDK");
}

#[test]
fn what_nbdkit_says_is_told_without_the_password() {
    if !have("nbdkit") {
        return;
    }
    let mut stand = Stand::new(26, "", "");
    stand.disk.auth.password = "sesame street".into();
    let error = stand.refused(&options());
    let VddkError::Ended { said, .. } = &error else {
        panic!("{error}");
    };
    assert!(said.contains("login with password *** failed"), "{said}");
    assert!(!chain(&error).contains("street"), "{error}");
}

#[test]
fn a_plugin_that_does_not_open_the_disk_ends_in_its_words() {
    if !have("nbdkit") {
        return;
    }
    let stand = Stand::new(27, "", "");
    std::fs::remove_file(stand.place.path("web.vmdk")).unwrap();
    let few = SourceOptions {
        retries: 1,
        ..options()
    };
    let error = stand.refused(&few);
    assert!(chain(&error).contains("No such file"), "{}", chain(&error));
}

#[test]
fn an_nbdkit_that_never_listens_is_ended() {
    if !have("nbdkit") {
        return;
    }
    let mut stand = Stand::new(28, "", "");
    std::fs::write(
        stand.place.path("how"),
        "echo $$ > \"$here/running\"\nexec sleep 1000\n",
    )
    .unwrap();
    stand.disk.start = Duration::from_secs(5);
    let error = stand.refused(&options());
    assert!(matches!(error, VddkError::Slow { .. }), "{error}");
    stand.is_gone();
}

#[test]
fn an_nbdkit_that_dies_in_the_middle_is_named() {
    if !have("nbdkit") {
        return;
    }
    // Every read takes longer than the test: it is killed while they wait.
    let stand = Stand::new(29, "--filter=delay", "rdelay=100");
    let few = SourceOptions {
        retries: 1,
        ..options()
    };
    let mut source = vddk_source(&stand.disk, None, &few).unwrap();
    let kill = Command::new("kill")
        .args(["-KILL", stand.read("running").trim()])
        .status();
    assert!(kill.unwrap().success());
    let outcome = import_to(source.as_mut(), &stand.out());
    let Err(longshore_transfer::Error::Source { source, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    let error = source.downcast_ref::<VddkError>().unwrap();
    assert!(matches!(error, VddkError::Ended { .. }), "{}", chain(error));
    assert!(!matches!(
        error,
        VddkError::Server {
            source: NbdError::Cancelled,
            ..
        }
    ));
}

#[test]
fn the_command_imports_a_disk_and_ends_nbdkit_however_it_ends() {
    if !have("nbdkit") {
        return;
    }
    let stand = Stand::new(30, "--filter=delay", "rdelay=1ms");
    let url = format!(
        "vddk://administrator@vcenter.example.org/?vm=vm-9&file=web.vmdk&libdir={}",
        stand.disk.libdir.display()
    );
    let path = stand.path();
    let command = || {
        let mut command = longshore();
        command.args(["import", &url]).arg(stand.out());
        command.env("PATH", &path);
        command.env("LONGSHORE_PASSWORD", PASSWORD);
        command
    };
    let done = command().output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    same(&stand.out(), &stand.place.path("web.vmdk"));
    stand.is_gone();
    // Killed without a chance to say good-bye.
    std::fs::write(
        stand.place.path("how"),
        "FILTER=--filter=delay\nMORE=rdelay=100\n",
    )
    .unwrap();
    std::fs::remove_file(stand.place.path("called")).unwrap();
    let mut running = command().stderr(Stdio::null()).spawn().unwrap();
    let directory = eventually("nbdkit", || {
        let called = std::fs::read_to_string(stand.place.path("called")).unwrap_or_default();
        let socket = called
            .lines()
            .map(Path::new)
            .find(|path| path.ends_with("socket"));
        // It writes this when it listens, and watches us by then.
        let directory = socket.and_then(Path::parent)?;
        let pid = std::fs::metadata(directory.join("pid"));
        pid.is_ok_and(|pid| pid.len() > 0)
            .then(|| directory.to_owned())
    });
    running.kill().unwrap();
    running.wait().unwrap();
    let pid = stand.read("running");
    let alive = PathBuf::from("/proc").join(pid.trim()).join("fd");
    eventually("the end of nbdkit", || (!alive.exists()).then_some(()));
    // Nobody was left to do this. The password was in no file.
    let password = directory.join("password");
    assert!(std::fs::metadata(password).map_or(true, |pipe| pipe.file_type().is_fifo()));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_snapshot_is_gone_on_with_and_a_disk_in_use_is_not() {
    if !have("nbdkit") {
        return;
    }
    let mut stand = Stand::new(32, "", "");
    let open = |disk: &VddkDisk| vddk_source(disk, None, &options()).unwrap();
    let disk = stand.place.path("web.vmdk");
    for (snapshot, goes_on) in [(Some("snapshot-7"), true), (None, false)] {
        stand.disk.snapshot = snapshot.map(str::to_owned);
        let report = super::resume::cut_and_made(|| open(&stand.disk), &stand.out());
        same(&stand.out(), &disk);
        assert_eq!(report.bytes_resumed > 0, goes_on, "{report:?}");
        // About 6 MiB are data.
        assert_eq!(report.bytes_read < 4 * MIB, goes_on, "{report:?}");
    }
}
