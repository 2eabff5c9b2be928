//! The monitor client against the real QEMU.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use longshore_launcher::qmp::{Broken, Qmp, QmpError};
use serde_json::{Value, json};

use crate::host::{QEMU, has};
use crate::rig::eventually;

/// A QEMU without a guest; killed when dropped.
struct Bare {
    child: Child,
    dir: tempfile::TempDir,
}

impl Bare {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(QEMU)
            .args(["-machine", "none", "-nodefaults", "-display", "none", "-S"])
            .args(["-qmp", "unix:qmp.sock,server=on,wait=off"])
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        // The file is there a moment before anybody listens.
        eventually("the monitor", || {
            UnixStream::connect(dir.path().join("qmp.sock")).ok()
        });
        Self { child, dir }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_client_speaks_with_the_real_qemu() {
    if !has(QEMU) {
        return;
    }
    let mut qemu = Bare::start();
    let (qmp, mut events, greeting) = Qmp::connect(&qemu.dir.path().join("qmp.sock"))
        .await
        .unwrap();
    assert!(greeting.major >= 8, "{greeting:?}");

    let version = qmp.execute("query-version", Value::Null).await.unwrap();
    assert_eq!(version["qemu"]["major"], json!(greeting.major));
    let schema = qmp.execute("query-qmp-schema", Value::Null).await.unwrap();
    assert!(schema.as_array().unwrap().len() > 500);

    let refused = qmp.execute("no-such-command", json!({})).await.unwrap_err();
    let QmpError::Refused { class, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(class, "CommandNotFound");
    let refused = qmp
        .execute("block_resize", json!({ "size": "x" }))
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), "QmpRefused");

    qmp.execute("cont", Value::Null).await.unwrap();
    assert_eq!(events.next().await.unwrap().name, "RESUME");
    qmp.execute("quit", Value::Null).await.unwrap();
    let mut last = None;
    while let Some(event) = events.next().await {
        assert!(event.timestamp.seconds > 1_000_000_000);
        last = Some(event);
    }
    let last = last.unwrap();
    assert_eq!(
        (last.name.as_str(), last.text("reason")),
        ("SHUTDOWN", "host-qmp-quit")
    );
    let QmpError::Lost { source } = events.lost() else {
        panic!()
    };
    assert!(
        matches!(*source, Broken::Closed | Broken::Read { .. }),
        "{source:?}"
    );
    assert!(qmp.execute("stop", Value::Null).await.is_err());
    assert!(qemu.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_qemu_that_dies_fails_the_command_under_way() {
    if !has(QEMU) {
        return;
    }
    let mut qemu = Bare::start();
    let (qmp, _events, _) = Qmp::connect(&qemu.dir.path().join("qmp.sock"))
        .await
        .unwrap();
    let pid = rustix::process::Pid::from_child(&qemu.child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let waiting = tokio::spawn(async move { qmp.execute("query-status", Value::Null).await });
    tokio::task::yield_now().await;
    qemu.child.kill().unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.unwrap_err().reason(), "QmpLost");
}
