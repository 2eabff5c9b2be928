//! Programs written in Python that we test with: ovirt-imageio, oVirt's own server of disks.
//!
//! It is installed by pip, of one version, into a virtual environment of its own in the cache outside the
//! checkout, once per machine. It needs no root and touches no other Python.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::Run;
use crate::{paths, say};

/// `tests/harness/imageio.rs` looks for this version.
const IMAGEIO: &str = "2.5.1";

/// Installs it, if it is not there.
pub(crate) fn imageio() -> Result<PathBuf> {
    let home = paths::cache(&format!("ovirt-imageio-{IMAGEIO}"))?;
    let program = home.join("bin/ovirt-imageio");
    // Written last: an installation that was interrupted is done again.
    let ready = home.join("ready");
    if ready.is_file() {
        return Ok(program);
    }
    say::line(&format!(
        "installing ovirt-imageio {IMAGEIO} once, into the cache {}",
        home.display()
    ));
    // The distribution's: its headers are installed, and those of others may not be.
    Run::new("/usr/bin/python3")
        .args(["-m", "venv", "--clear"])
        .arg(&home)
        .check()?;
    Run::new(home.join("bin/pip"))
        .args([
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .arg(format!("ovirt-imageio=={IMAGEIO}"))
        .check()?;
    paths::write(&ready, IMAGEIO)?;
    Ok(program)
}
