//! SIGTERM (and SIGINT, for people at a shell) as a request to stop.

use longshore_transfer::Cancel;
use tokio::signal::unix::{SignalKind, signal};

use super::PodError;

/// Cancels `cancel` when a signal comes. The thread lives as long as the process.
pub(super) fn watch(cancel: &Cancel) -> Result<(), PodError> {
    let failed = |source| PodError::Host {
        action: "listen for signals",
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        (terminate, interrupt)
    };
    let cancel = cancel.clone();
    let waiting = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        tracing::info!("told to end");
        cancel.cancel();
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(waiting)
        .map(drop)
        .map_err(failed)
}
