//! From a plan to a run.

use std::path::Path;

use super::{Command, Options, Outcome, RunError, Supervisor};
use crate::plan::{Plan, StateFile};

impl From<&Plan> for Command {
    fn from(plan: &Plan) -> Self {
        Self {
            program: plan.program.clone(),
            args: plan.args.clone(),
            dir: plan.dir.clone(),
            files: plan.files.clone(),
            qmp_socket: plan.sockets.qmp.clone(),
            serial_socket: plan.sockets.serial.clone(),
            vnc_socket: plan.sockets.vnc.clone(),
            serial_log: plan.serial_log.clone(),
            grace: plan.grace,
            start_paused: plan.start_paused,
        }
    }
}

/// Runs a planned VM to its end on this thread; see [`Supervisor::run`].
///
/// Use a [`Supervisor`] of its own where the VM is to be paused, reset or stopped from elsewhere.
pub fn run(plan: &Plan, options: Options) -> Result<Outcome, RunError> {
    let (supervisor, _control) = Supervisor::new(plan.into(), options);
    supervisor.run()
}

/// Makes the directory, for its owner alone.
pub(super) fn prepare(dir: &Path) -> Result<(), RunError> {
    use std::os::unix::fs::DirBuilderExt as _;

    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|source| RunError::State {
        step: "making",
        path: dir.to_owned(),
        source,
    })
}

/// Makes the files QEMU is to find. Only under the claim: another run may be using its own.
pub(super) fn make(files: &[StateFile]) -> Result<(), RunError> {
    for file in files {
        file.create().map_err(|source| RunError::State {
            step: "making",
            path: file.path.clone(),
            source,
        })?;
    }
    Ok(())
}
