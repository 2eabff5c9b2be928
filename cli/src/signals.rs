//! SIGINT, SIGTERM, SIGHUP and SIGQUIT as something to look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Counts signals that ask us to end. From [`Signals::take`] on they no longer do it by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Signals(Arc<AtomicU32>);

impl Signals {
    /// Begins to count, on a thread of its own that lives as long as the process.
    pub(crate) fn take() -> Result<Self, Failure> {
        let failed = |source| Failure::Host {
            action: "could not listen for signals".to_owned(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed)?;
        let ignored = ignored_signals();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let mut streams = Vec::new();
        {
            let _entered = runtime.enter();
            for kind in kinds {
                // What nohup or a script's `&` made us ignore stays ignored.
                if (ignored >> (kind.as_raw_value() - 1)) & 1 == 0 {
                    streams.push(signal(kind).map_err(failed)?);
                }
            }
        }
        let count = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&count);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        std::future::poll_fn(|context| {
                            let came = streams
                                .iter_mut()
                                .any(|stream| stream.poll_recv(context).is_ready());
                            if came {
                                std::task::Poll::Ready(())
                            } else {
                                std::task::Poll::Pending
                            }
                        })
                        .await;
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
            })
            .map_err(failed)?;
        Ok(Self(count))
    }

    /// How many came so far.
    pub(crate) fn received(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A mask of the signals this process ignores; none if the kernel does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
