//! Programs that later stages need are built while earlier ones run.
//!
//! On empty caches that is a quarter of an hour of Go's compiler on two cores. Cargo leaves one of them idle
//! whenever a single crate is compiled or linked, and tests that wait leave both.

use std::env;
use std::process::{Child, Command};

use crate::{paths, say};

/// A process of its own, which gives way to the stages. What it does not get done they do themselves, and
/// they tell what fails.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    begun: bool,
    child: Option<Child>,
}

impl Ahead {
    /// Begins, unless it has.
    pub(super) fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let child = env::current_exe().and_then(|program| {
            let mut tools = Command::new("nice");
            tools.args(["-n", "10"]).arg(program).arg("tools");
            tools.current_dir(paths::root()).spawn()
        });
        match child {
            Ok(child) => self.child = Some(child),
            Err(error) => say::line(&format!("nothing is built ahead: {error}")),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended by itself if the stages went well.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
