//! The signals that ask a process to end, as events.

use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::RunError;

#[derive(Debug)]
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    pub(super) fn new(wanted: bool) -> Result<Self, RunError> {
        if !wanted {
            return Ok(Self(Vec::new()));
        }
        let ignored = ignored_signals();
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        kinds
            .into_iter()
            // What nohup or a script's `&` made us ignore stays ignored.
            .filter(|kind| (ignored >> (kind.as_raw_value() - 1)) & 1 == 0)
            .map(signal)
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|source| RunError::Host {
                step: "taking signals",
                source,
            })
    }

    /// Cancel-safe.
    pub(super) async fn next(&mut self) {
        std::future::poll_fn(|context| {
            if self
                .0
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready())
            {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// A mask of the signals this process ignores; none if the kernel does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
