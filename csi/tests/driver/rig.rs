//! A driver on a folder of its own, and a client of its socket.
//!
//! It runs in a mount namespace that ends with the test, so that whatever a failed test has left mounted
//! goes with it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use http::Request;
use longshore_csi::host;
use longshore_csi::proto::{
    Access, AccessMode, CapacityRange, CreateVolumeRequest, CreateVolumeResponse, Empty, Id, Mode,
    Mount, PublishRequest, StageRequest, UndoRequest, VolumeCapability,
};
use longshore_tests::device::is_root;
use longshore_tests::program::{have, said};
use prost::Message;
use tempfile::TempDir;
use tokio::net::UnixStream;

pub(crate) const MIB: i64 = 1 << 20;
const PATIENCE: Duration = Duration::from_mins(1);

/// gRPC's number of a failure, and what was said.
pub(crate) type Refused = (u16, String);

pub(crate) struct Rig {
    folder: TempDir,
    /// Holds the namespace for as long as we hold its input.
    holder: Child,
    driver: Child,
}

impl Rig {
    /// None, with the reason, where volumes cannot be mounted.
    pub(crate) fn new() -> Option<Self> {
        let tools = ["losetup", "mkfs.xfs", "xfs_growfs", "fsfreeze", "unshare"];
        if !is_root() || !tools.into_iter().all(have) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = holder.stdout.as_mut().unwrap();
        out.read_exact(&mut [0]).unwrap();
        let driver = start(folder.path(), &holder, &[]);
        let rig = Self {
            folder,
            holder,
            driver,
        };
        rig.ready();
        Some(rig)
    }

    /// Kills the driver wherever it is, and starts it again.
    pub(crate) fn restart(&mut self, more: &[&str]) {
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
        self.driver = start(self.folder.path(), &self.holder, more);
        self.ready();
    }

    fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        while self.call::<_, Empty>("Identity/Probe", &Empty {}).is_err() {
            assert!(Instant::now() < until, "the driver does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Runs a script where the driver's mounts are; what it said if it ends well, what it complained of
    /// otherwise.
    pub(crate) fn shell(&self, script: &str) -> Result<String, String> {
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &self.holder.id().to_string()])
            .args(["sh", "-euc", &format!("cd \"$0\"; {script}")])
            .arg(self.folder.path())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(said(&output))
        }
    }

    /// What is over the files of this rig.
    pub(crate) fn devices(&self) -> Vec<PathBuf> {
        let images = fs::read_dir(self.path("state/volumes")).unwrap();
        images
            .filter_map(|image| host::device_over(&image.unwrap().path()).unwrap())
            .collect()
    }

    /// Everything that the driver keeps.
    pub(crate) fn kept(&self) -> Vec<String> {
        let folders = ["state/volumes", "state/snapshots"].map(|name| self.path(name));
        let entries = folders.iter().flat_map(|path| fs::read_dir(path).unwrap());
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn call<I: Message, O: Message + Default>(
        &self,
        method: &str,
        request: &I,
    ) -> Result<O, Refused> {
        let url = format!("http://localhost/csi.v1.{method}");
        call(&self.path("csi.sock"), &url, request)
    }

    pub(crate) fn create(
        &self,
        request: &CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse, Refused> {
        self.call("Controller/CreateVolume", request)
    }

    pub(crate) fn delete(&self, id: &str) -> Result<Empty, Refused> {
        self.call("Controller/DeleteVolume", &Id { id: id.to_owned() })
    }

    /// Shows a volume at `ID-pod`.
    pub(crate) fn use_it(&self, id: &str, capability: &VolumeCapability) {
        let staging_path = self.text(&format!("{id}-staging"));
        fs::create_dir_all(&staging_path).unwrap();
        let stage = StageRequest {
            id: id.to_owned(),
            staging_path: staging_path.clone(),
            capability: Some(capability.clone()),
        };
        let publish = PublishRequest {
            id: id.to_owned(),
            staging_path,
            target_path: self.text(&format!("{id}-pod")),
            capability: Some(capability.clone()),
            readonly: false,
        };
        // Kubernetes asks again when it is not sure.
        for _ in 0..2 {
            let _: Empty = self.call("Node/NodeStageVolume", &stage).unwrap();
        }
        for _ in 0..2 {
            let _: Empty = self.call("Node/NodePublishVolume", &publish).unwrap();
        }
    }

    /// Takes it away again.
    pub(crate) fn leave_it(&self, id: &str) {
        for (method, name) in [("Unpublish", "pod"), ("Unstage", "staging")] {
            let undo = UndoRequest {
                id: id.to_owned(),
                path: self.text(&format!("{id}-{name}")),
            };
            for _ in 0..2 {
                let method = format!("Node/Node{method}Volume");
                let _: Empty = self.call(&method, &undo).unwrap();
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let (driver, holder) = (&mut self.driver, &mut self.holder);
        // Either may have gone already.
        drop(driver.kill().and_then(|()| driver.wait()));
        drop(holder.kill().and_then(|()| holder.wait()));
        for device in self.devices() {
            drop(host::detach(&device));
        }
    }
}

fn start(folder: &Path, holder: &Child, more: &[&str]) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    Command::new("nsenter")
        .args(["--mount", "--target", &holder.id().to_string()])
        .arg(env!("CARGO_BIN_EXE_longshore-csi"))
        .arg("--endpoint")
        .arg(folder.join("csi.sock"))
        .arg("--state")
        .arg(folder.join("state"))
        .arg("--registration")
        .arg(folder)
        .args(["--node", "node-1"])
        .args(more)
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A call by a client that is not ours.
pub(crate) fn call<I: Message, O: Message + Default>(
    socket: &Path,
    url: &str,
    request: &I,
) -> Result<O, Refused> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let body = request.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let body = [&[0], &length[..], &body].concat();
    let outcome = runtime
        .block_on(async { tokio::time::timeout(PATIENCE, post(socket, url, body.into())).await });
    let (status, answer) = outcome.unwrap().map_err(|error| (0, error.to_string()))?;
    if status.0 == 0 {
        Ok(O::decode(&answer[5..]).unwrap())
    } else {
        Err(status)
    }
}

async fn post(
    socket: &Path,
    url: &str,
    body: Bytes,
) -> Result<(Refused, Vec<u8>), Box<dyn std::error::Error>> {
    let stream = UnixStream::connect(socket).await?;
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut stream) = send.ready().await?.send_request(request, false)?;
    stream.send_data(body, true)?;
    let (parts, body) = response.await?.into_parts();
    if parts.headers.contains_key("grpc-status") {
        return Ok((status(&parts.headers), Vec::new()));
    }
    receive(body).await
}

async fn receive(mut body: RecvStream) -> Result<(Refused, Vec<u8>), Box<dyn std::error::Error>> {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await?.ok_or("no trailers")?;
    Ok((status(&trailers), all))
}

fn status(headers: &http::HeaderMap) -> Refused {
    let text = |name| headers.get(name).map_or("", |v| v.to_str().unwrap());
    (
        text("grpc-status").parse().unwrap(),
        text("grpc-message").to_owned(),
    )
}

/// A volume for a filesystem.
pub(crate) fn filesystem() -> VolumeCapability {
    capability(Access::Mount(Mount::default()))
}

/// A volume that is a device.
pub(crate) fn device() -> VolumeCapability {
    capability(Access::Block(Empty {}))
}

fn capability(access: Access) -> VolumeCapability {
    VolumeCapability {
        access: Some(access),
        mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter as i32,
        }),
    }
}

/// A request for a volume of so many bytes.
pub(crate) fn volume(name: &str, bytes: i64, capability: VolumeCapability) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity: Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        }),
        capabilities: vec![capability],
        ..CreateVolumeRequest::default()
    }
}
