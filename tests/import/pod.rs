//! The importer pod's program, as a pod runs it: environment in, termination message out.

mod metrics;
mod objects;
mod resume;
mod targets;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use longshore_crds::contract::Termination;
use longshore_tests::data::{disk, image, quick_dir};
use longshore_tests::http::{Fault, Page, Server};
use longshore_tests::program::{digest, have, importer, said};
use tempfile::TempDir;

use super::serving;

const MIB: u64 = 1 << 20;

/// What the server wants to see of user `jane` with password `hush`.
const JANE: &str = "Basic amFuZTpodXNo";

/// A pod: its volume, its environment.
pub(super) struct Pod {
    dir: TempDir,
    vars: Vec<(String, String)>,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) end: Termination,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    pub(super) fn message(&self) -> &str {
        self.end.message.as_deref().unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn complete(&self) -> &Termination {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(self.message(), "Import Complete");
        assert_eq!(self.end.reason.as_deref(), Some("Complete"));
        &self.end
    }

    #[track_caller]
    pub(super) fn failed(&self, code: i32, reason: &str) -> &str {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(self.end.reason.as_deref(), Some(reason), "{}", self.stderr);
        // The log says it too.
        assert!(self.stderr.contains(self.message()), "{}", self.stderr);
        self.message()
    }
}

impl Pod {
    pub(super) fn new(source: &str) -> Self {
        let dir = quick_dir();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let vars = [
            ("IMPORTER_SOURCE", source.to_owned()),
            ("OWNER_UID", "the-owner".to_owned()),
            ("LONGSHORE_DATA_DIR", path("data")),
            ("LONGSHORE_BLOCK_DEVICE", path("no-device")),
            ("LONGSHORE_TERMINATION_LOG", path("termination-log")),
            ("LONGSHORE_METRICS_ADDRESS", "127.0.0.1:0".to_owned()),
            // Not the machine's.
            ("IMPORTER_SECRET_EXTRA_HEADERS_DIR", path("headers")),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { dir, vars }
    }

    pub(super) fn http(url: &str) -> Self {
        Self::new("http").set("IMPORTER_ENDPOINT", url)
    }

    pub(super) fn set(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.path("data/disk.img")
    }

    /// Names of all in the volume, hidden ones too.
    pub(super) fn volume(&self) -> Vec<String> {
        let names = self.path("data").read_dir().unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    pub(super) fn vars(&self) -> impl Iterator<Item = (String, String)> {
        self.vars.iter().cloned()
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("env");
        // Whoever started the tests may ignore signals, and children inherit that.
        command.arg("--default-signal=INT,TERM").arg(importer());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap());
        command.envs(self.vars());
        command.stdin(Stdio::null());
        command
    }

    pub(super) fn start(&self) -> Child {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub(super) fn ended(&self, output: &Output) -> Ended {
        let text = std::fs::read_to_string(self.path("termination-log"));
        let text = text.unwrap_or_else(|e| panic!("{e}: {}", said(output)));
        assert!(text.len() < 4096);
        Ended {
            code: output.status.code(),
            end: Termination::parse(&text).unwrap(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    pub(super) fn run(&self) -> Ended {
        self.ended(&self.command().output().unwrap())
    }
}

#[test]
fn an_import_makes_the_disk_and_says_all_about_it() {
    let bytes = disk(5_000_000, 1);
    let (_server, url) = serving("/disk.raw", Page::of(bytes.clone()));
    let sum = digest("sha256", &bytes);
    let pod = Pod::http(&url)
        .set("IMPORTER_IMAGE_SIZE", "20Mi")
        .set("FILESYSTEM_OVERHEAD", "0.06")
        .set("IMPORTER_CHECKSUM", &sum);
    let ended = pod.run();
    let end = ended.complete();
    assert_eq!(end.scratch_space_required, Some(false));
    assert_eq!(end.preallocation_applied, Some(false));
    assert_eq!(end.format.as_deref(), Some("raw"));
    assert_eq!(end.virtual_size, Some(5_000_000));
    // 20 MiB less the overhead, in whole MiB.
    assert_eq!(end.disk_size, Some(18 * MIB));
    let source = end.source.as_ref().unwrap();
    assert_eq!((&source.name, source.length), (&url, Some(5_000_000)));
    assert_eq!(end.checksum.as_deref(), Some(sum.as_str()));
    assert_eq!(end.bytes_read, Some(5_000_000));
    assert!(end.bytes_written.unwrap() <= 5_000_000);
    assert_eq!(end.bytes_spilled, Some(0));
    assert!(end.seconds.unwrap() > 0.0);
    assert_eq!(pod.volume(), ["disk.img"]);
    let made = std::fs::read(pod.disk()).unwrap();
    assert_eq!(made.len() as u64, 18 * MIB);
    assert!(made[..bytes.len()] == bytes && made[bytes.len()..].iter().all(|byte| *byte == 0));
    let permissions = pod.disk().metadata().unwrap().permissions();
    assert_eq!(permissions.mode() & 0o7777, 0o660);
    let synced = format!(
        "Successfully completed fsync({}) syscall",
        pod.disk().display()
    );
    assert!(ended.stderr.contains(&synced), "{}", ended.stderr);
    let last: serde_json::Value =
        serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "done");
    assert_eq!(last["virtualSize"], 5_000_000);
}

#[test]
fn a_wrong_checksum_ends_with_0_a_message_and_no_disk() {
    let (_server, url) = serving("/disk.raw", Page::of(disk(1_000_000, 2)));
    let sum = format!("md5:{}", "0".repeat(32));
    let pod = Pod::http(&url).set("IMPORTER_CHECKSUM", &sum);
    let ended = pod.run();
    let message = ended.failed(0, "ChecksumMismatch");
    assert!(
        message.starts_with("Unable to process data: checksum mismatch"),
        "{message}"
    );
    assert!(pod.volume().is_empty(), "{:?}", pod.volume());
}

#[test]
fn what_is_wrong_with_the_environment_is_said() {
    let pod = Pod::new("http");
    let ended = pod.run();
    let message = ended.failed(1, "InvalidEnvironment");
    assert!(
        message.starts_with("IMPORTER_ENDPOINT is not set"),
        "{message}"
    );
    let ended = Pod::new("ftp").run();
    assert_eq!(
        ended.failed(1, "InvalidEnvironment"),
        "Unknown data source: ftp"
    );
    let ended = Pod::new("none")
        .set("IMPORTER_CONTENTTYPE", "archive")
        .run();
    let message = ended.failed(1, "InvalidEnvironment");
    assert_eq!(
        message,
        "Cannot create empty disk with content type archive"
    );
}

#[test]
fn a_server_that_refuses_is_named_and_the_kubelet_tries_again() {
    let (_server, url) = serving("/disk.raw", Page::status(404));
    let ended = Pod::http(&url).run();
    let message = ended.failed(1, "NotFound");
    let begins = format!(
        "Unable to connect to http data source: expected status code 200, got 404. \
         Status: 404 Not Found: could not open {url}"
    );
    assert!(message.starts_with(&begins), "{message}");
    let last = ended.stdout.lines().last().unwrap();
    assert!(
        last.contains("\"event\":\"error\"") && last.contains("NotFound"),
        "{last}"
    );
}

#[test]
fn an_image_whose_tables_would_take_gigabytes_is_refused_in_qemus_words() {
    // A VMDK of ESX 2 with a grain directory of 8 GiB.
    let mut image = vec![0; 4096];
    let words = [1u32, 3, 2048, 1, 4, 1 << 31];
    image[..4].copy_from_slice(b"COWD");
    for (at, word) in words.into_iter().enumerate() {
        image[4 + 4 * at..8 + 4 * at].copy_from_slice(&word.to_le_bytes());
    }
    let (_server, url) = serving("/disk.img", Page::of(image));
    let ended = Pod::http(&url).run();
    let message = ended.failed(1, "ImageMalformed");
    assert!(
        message.starts_with("Unable to process data: ") && message.contains("L1 size too big"),
        "{message}"
    );
}

#[test]
fn credentials_and_headers_reach_the_server_and_nothing_else() {
    let bytes = disk(200_000, 3);
    let (server, url) = serving("/disk.raw", Page::of(bytes.clone()).auth(JANE));
    let secrets = ["hush", "plain-header", "mounted-header"];
    let pod = Pod::http(&url)
        .set("IMPORTER_EXTRA_HEADER_0", "X-Plain: plain-header")
        .set("RUST_BACKTRACE", "1")
        .set("LONGSHORE_LOG", "debug");
    std::fs::create_dir_all(pod.path("headers/0")).unwrap();
    std::fs::write(pod.path("headers/0/key"), "X-Mounted: mounted-header\n").unwrap();
    let by_env = [
        ("IMPORTER_ACCESS_KEY_ID", "jane"),
        ("IMPORTER_SECRET_KEY", "hush"),
    ];
    let pod = by_env
        .into_iter()
        .fold(pod, |pod, (name, value)| pod.set(name, value));
    let ended = pod.run();
    ended.complete();
    let request = &server.log().requests[0];
    assert_eq!(request.header("x-plain"), Some("plain-header"));
    assert_eq!(request.header("x-mounted"), Some("mounted-header"));
    let all = format!("{}{}{:?}", ended.stdout, ended.stderr, ended.end);
    for secret in secrets {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    // The same by a mounted Secret; and a refusal tells nothing of it.
    for (password, code) in [("hush", 0), ("other-secret", 1)] {
        let pod = Pod::http(&url);
        std::fs::create_dir(pod.path("secret")).unwrap();
        std::fs::write(pod.path("secret/accessKeyId"), "jane").unwrap();
        std::fs::write(pod.path("secret/secretKey"), password).unwrap();
        let directory = pod.path("secret");
        let pod = pod.set("IMPORTER_CREDENTIALS_DIR", directory.to_str().unwrap());
        let ended = pod.run();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        let all = format!("{}{}{:?}", ended.stdout, ended.stderr, ended.end);
        assert!(!all.contains(password), "{all}");
    }
}

#[test]
fn a_proxy_of_the_environment_is_asked() {
    let bytes = disk(200_000, 8);
    let proxy = Server::start([("/disk.raw", Page::of(bytes.clone()))]);
    let far = "http://disks.invalid/disk.raw";
    let address = format!("http://jane:hush@{}", proxy.address());
    let pod = Pod::http(far)
        .set("IMPORTER_IMAGE_SIZE", "4Mi")
        .set("http_proxy", &address);
    let ended = pod.run();
    ended.complete();
    let request = proxy.log().requests.remove(0);
    assert_eq!(request.target, far);
    assert_eq!(request.header("proxy-authorization"), Some(JANE));
    assert!(std::fs::read(pod.disk()).unwrap()[..bytes.len()] == bytes);
    assert!(!format!("{}{:?}", ended.stderr, ended.end).contains("hush"));
}

#[test]
fn a_disk_pulled_by_the_node_is_read_where_it_is_once_its_container_runs() {
    let bytes = disk(300_000, 4);
    let pod = Pod::new("registry")
        .set("IMPORTER_ENDPOINT", "docker://registry.example.org/disk:1")
        .set("IMPORTER_IMAGE_SIZE", "4Mi")
        .set("IMPORTER_PULL_METHOD", "node");
    let (ready, done) = (pod.path("ready"), pod.path("done"));
    let pod = pod
        .set("IMPORTER_READY_FILE", ready.to_str().unwrap())
        .set("IMPORTER_DONE_FILE", done.to_str().unwrap());
    let child = pod.start();
    let folder = pod.path("disk");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("other.img"), &bytes).unwrap();
    let said = format!("{}\nA_KUBEVIRT_IO_B=c\nNOT_ONE=d\n", folder.display());
    // Written elsewhere first: the importer may look at any moment.
    std::fs::write(pod.path("said"), said).unwrap();
    std::fs::rename(pod.path("said"), &ready).unwrap();
    let output = child.wait_with_output().unwrap();
    let ended = pod.ended(&output);
    let end = ended.complete();
    assert!(std::fs::read(pod.disk()).unwrap()[..bytes.len()] == bytes);
    assert!(done.exists());
    assert_eq!(end.labels["a.kubevirt.io/b"], "c");
    assert_eq!(end.labels.len(), 1);
    let source = end.source.as_ref().unwrap();
    assert_eq!(source.name, "docker://registry.example.org/disk:1");
}

#[test]
fn what_an_earlier_attempt_left_is_no_hindrance() {
    let bytes = disk(3_000_000, 5);
    let (_server, url) = serving(
        "/disk.raw",
        Page::of(bytes.clone()).fault(Fault::Cut(1_000_000)),
    );
    let pod = Pod::http(&url).set("IMPORTER_IMAGE_SIZE", "4Mi");
    std::fs::write(pod.disk(), vec![7; 1 << 20]).unwrap();
    std::fs::write(pod.path("data/.disk.img.partial"), vec![7; 8 << 20]).unwrap();
    pod.run().complete();
    assert_eq!(pod.volume(), ["disk.img"]);
    assert!(std::fs::read(pod.disk()).unwrap()[..bytes.len()] == bytes);
    assert_eq!(pod.disk().metadata().unwrap().len(), 4 * MIB);
}

#[test]
fn a_blank_disk_has_the_requested_size() {
    for (preallocation, has_blocks) in [("false", false), ("true", true)] {
        let pod = Pod::new("none")
            .set("IMPORTER_IMAGE_SIZE", "9Mi")
            .set("FILESYSTEM_OVERHEAD", "0.1")
            .set("PREALLOCATION", preallocation);
        let ended = pod.run();
        let end = ended.complete();
        assert_eq!(end.preallocation_applied, Some(has_blocks));
        assert_eq!(end.disk_size, Some(8 * MIB));
        let meta = pod.disk().metadata().unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o7777), (8 * MIB, 0o660));
        assert_eq!(meta.blocks() * 512 >= 8 * MIB, has_blocks);
    }
}

#[test]
fn preallocation_gives_the_whole_disk_its_blocks() {
    let bytes = disk(1_000_000, 6);
    let (_server, url) = serving("/disk.raw", Page::of(bytes.clone()));
    let pod = Pod::http(&url)
        .set("IMPORTER_IMAGE_SIZE", "8Mi")
        .set("PREALLOCATION", "true");
    assert_eq!(pod.run().complete().preallocation_applied, Some(true));
    let meta = pod.disk().metadata().unwrap();
    assert_eq!(meta.len(), 8 * MIB);
    assert!(meta.blocks() * 512 >= 8 * MIB);
}

#[test]
fn an_image_larger_than_the_volume_is_refused_before_anything_is_written() {
    if !have("qemu-img") {
        return;
    }
    let image = image(&[], "qemu-img create -q -f qcow2 image 64M");
    let (_server, url) = serving("/disk.qcow2", Page::of(image));
    let pod = Pod::http(&url).set("IMPORTER_IMAGE_SIZE", "64M");
    let ended = pod.run();
    let message = ended.failed(1, "TargetTooSmall");
    assert_eq!(
        message,
        "Unable to process data: virtual image size 67108864 is larger than the reported available \
         storage 63963136. A larger PVC is required"
    );
    assert!(pod.volume().is_empty());
    let ended = Pod::http(&url).set("IMPORTER_IMAGE_SIZE", "64Mi").run();
    let end = ended.complete();
    assert_eq!(end.format.as_deref(), Some("qcow2"));
    assert_eq!(
        (end.virtual_size, end.disk_size),
        (Some(64 * MIB), Some(64 * MIB))
    );
}

#[test]
fn a_log_in_json_is_one_object_a_line() {
    let (_server, url) = serving("/disk.raw", Page::of(disk(100_000, 7)));
    let pod = Pod::http(&url)
        .set("LONGSHORE_LOG_FORMAT", "json")
        .set("LONGSHORE_PROGRESS", "off");
    let ended = pod.run();
    ended.complete();
    assert_eq!(ended.stdout, "");
    for line in ended.stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string(), "{line}");
    }
}
