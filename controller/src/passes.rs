//! A controller of few objects: with every change of what is known it looks at all of them.
//!
//! There are as many storage classes as a person can name, one configuration and one installation. To look
//! at them all is cheaper than to know which one a change is about, and nothing is missed.

use std::time::Duration;

use crate::error::{CONFLICT, Result};
use crate::known::Known;
use crate::rounds;

/// Makes a `pass` now and after each change, after the time that one asked for, and again after one that
/// failed. Runs until the process ends.
pub(crate) async fn make(
    known: &Known,
    what: &str,
    pass: impl AsyncFn() -> Result<Option<Duration>>,
) {
    let mut changes = known.changes();
    known.listed().await;
    loop {
        changes.borrow_and_update();
        let pause = match pass().await {
            Ok(None) => {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Some(pause)) => pause,
            Err(error) => {
                // Otherwise somebody was faster: what they wrote is on its way to us.
                if error.status() != Some(CONFLICT) {
                    tracing::warn!(
                        what,
                        error = &error as &dyn std::error::Error,
                        "it was not reconciled, which is tried again"
                    );
                }
                rounds::pause(&error)
            }
        };
        tokio::time::sleep(pause).await;
    }
}
