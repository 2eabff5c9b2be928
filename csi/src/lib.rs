//! A CSI driver for tests, `csi.longshore.test`: what Longshore's own test cluster has for storage.
//!
//! **It is not for production.** Its volumes are files of one machine: nothing is replicated, nothing is
//! synced to a disk, and a class may ask it to fail. It is honest where tests look: capacities are enforced,
//! snapshots are consistent, calls can be repeated and given up at any moment, and a driver that was killed
//! goes on where it was.
//!
//! - A volume is a sparse file of its size ([`store`]). One for a filesystem has XFS in it and is mounted
//!   over a loop device; one for a device is a loop device. Copies share blocks where the filesystem that
//!   they lie on can.
//! - [`controller`] makes, grows, copies and removes them; [`node`] attaches and mounts them. Both are the
//!   same process, on the one machine that there is.
//! - [`grpc`] carries the calls, [`proto`] has the messages. The kubelet is told by a socket of our own
//!   ([`registration`]), without node-driver-registrar.
//!
//! It does not own: where it runs and beside which sidecars (`xtask`), and who may mount what (Kubernetes).

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;

pub mod controller;
pub mod grpc;
pub mod host;
pub mod node;
pub mod proto;
pub mod registration;
mod room;
pub mod store;
mod wishes;

use crate::grpc::{Code, Service, Status, answer, listen, serve};
use crate::proto::{
    Ability, BoolValue, Capabilities, Capability, Empty, Number, PluginInfo, Ready, Topology,
};
use crate::room::Pending;
use crate::store::Store;
use crate::wishes::Wishes;

/// The driver's name, if it is not given another.
pub const NAME: &str = "csi.longshore.test";

/// What it is started with.
#[derive(Debug, Parser)]
#[command(about = "A CSI driver for tests. Do not keep anything on it.", version)]
pub struct Args {
    /// The socket at which calls are answered
    #[arg(long, value_name = "SOCKET")]
    pub endpoint: PathBuf,
    /// The folder of volumes and snapshots; a driver that is started again goes on with it
    #[arg(long, value_name = "FOLDER")]
    pub state: PathBuf,
    /// The node that it runs on
    #[arg(long, value_name = "NODE")]
    pub node: String,
    /// The folder in which the kubelet looks for plugins
    #[arg(long, value_name = "FOLDER")]
    pub registration: Option<PathBuf>,
    /// The driver's name
    #[arg(long, default_value = NAME)]
    pub name: String,
    /// How many bytes of volumes there may be in all
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 40)]
    pub capacity: u64,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("taking up the state in {folder}")]
    State {
        folder: PathBuf,
        source: std::io::Error,
    },
    #[error("listening at {socket}")]
    Socket {
        socket: PathBuf,
        source: std::io::Error,
    },
}

/// Answers calls until it is killed; there is nothing to put in order before.
pub async fn run(args: Args) -> Result<(), Failure> {
    let state = |source| Failure::State {
        folder: args.state.clone(),
        source,
    };
    let store = Store::open(&args.state).map_err(state)?;
    let driver = Arc::new(Driver {
        store,
        wishes: Wishes::default(),
        pending: Pending::default(),
        name: args.name,
        node: args.node,
        capacity: args.capacity,
    });
    driver.go_on().map_err(state)?;
    let socket = |socket: &PathBuf, source| Failure::Socket {
        socket: socket.clone(),
        source,
    };
    let calls = listen(&args.endpoint).map_err(|error| socket(&args.endpoint, error))?;
    let registration = args.registration.as_deref().map(registration::socket);
    if let Some(path) = &registration {
        let kubelet = listen(path).map_err(|error| socket(path, error))?;
        let plugin = Arc::new(registration::Registration {
            name: driver.name.clone(),
            endpoint: args.endpoint.clone(),
        });
        tokio::spawn(serve(kubelet, plugin));
    }
    tracing::info!(driver = driver.name, node = driver.node, "answering calls");
    let error = serve(calls, driver).await;
    Err(socket(&args.endpoint, error))
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    pub(crate) store: Store,
    pub(crate) wishes: Wishes,
    pub(crate) pending: Pending,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) capacity: u64,
}

impl Driver {
    /// Where its volumes are.
    pub(crate) fn topology(&self) -> Topology {
        let key = format!("{}/node", self.name);
        Topology {
            segments: [(key, self.node.clone())].into(),
        }
    }

    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: self.name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Service for Driver {
    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        let Some(method) = method.strip_prefix("/csi.v1.") else {
            return Err(unknown(method));
        };
        match method {
            "Identity/GetPluginInfo" => answer(message, |_: Empty| Ok(self.info())),
            "Identity/GetPluginCapabilities" => answer(message, |_: Empty| Ok(plugin_can())),
            "Identity/Probe" => answer(message, |_: Empty| {
                let ready = Some(BoolValue { value: true });
                Ok(Ready { ready })
            }),
            "Controller/ControllerGetCapabilities" => {
                answer(message, |_: Empty| Ok(can(&controller::CAN)))
            }
            "Controller/CreateVolume" => answer(message, |r| self.create_volume(&r)),
            "Controller/DeleteVolume" => answer(message, |r| self.delete_volume(&r)),
            "Controller/ValidateVolumeCapabilities" => answer(message, |r| self.validate(r)),
            "Controller/GetCapacity" => answer(message, |r| self.capacity_left(&r)),
            "Controller/ControllerExpandVolume" => answer(message, |r| self.expand_volume(&r)),
            "Controller/CreateSnapshot" => answer(message, |r| self.create_snapshot(&r)),
            "Controller/DeleteSnapshot" => answer(message, |r| self.delete_snapshot(&r)),
            "Controller/ListSnapshots" => answer(message, |r| self.list_snapshots(&r)),
            "Node/NodeGetCapabilities" => answer(message, |_: Empty| Ok(can(&node::CAN))),
            "Node/NodeGetInfo" => answer(message, |_: Empty| Ok(self.node_info())),
            "Node/NodeStageVolume" => answer(message, |r| self.stage(&r)),
            "Node/NodeUnstageVolume" => answer(message, |r| self.unstage(&r)),
            "Node/NodePublishVolume" => answer(message, |r| self.publish(&r)),
            "Node/NodeUnpublishVolume" => answer(message, |r| self.unpublish(&r)),
            "Node/NodeExpandVolume" => answer(message, |r| self.node_expand(&r)),
            _ => Err(unknown(method)),
        }
    }
}

pub(crate) fn unknown(method: &str) -> Status {
    let text = format!("this driver does not know {method}");
    Status::new(Code::Unimplemented, text)
}

/// A controller, volumes that only one node has, and volumes that grow while they are used.
fn plugin_can() -> Capabilities {
    const CONTROLLER: i32 = 1;
    const TOPOLOGY: i32 = 2;
    const ONLINE: i32 = 1;
    let mut all = can(&[CONTROLLER, TOPOLOGY]);
    all.capabilities.push(Capability {
        ability: Some(Ability::Expansion(Number { number: ONLINE })),
    });
    all
}

fn can(what: &[i32]) -> Capabilities {
    let one = |&number| Capability {
        ability: Some(Ability::Service(Number { number })),
    };
    Capabilities {
        capabilities: what.iter().map(one).collect(),
    }
}
