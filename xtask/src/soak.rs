//! `cargo xtask soak`: builds the command and hands over to the soak package, which owns what is looked for
//! and how.

use anyhow::Result;

use crate::shell::Run;
use crate::{cargo, install, paths};

/// Which soak, and its own options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handed on as they are, for example: kills, or differential --minutes 60
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    install::run(&install::Args::default())?;
    // Not a release: overflow is looked for, too, and the code that touches every byte is optimised anyway.
    cargo::locked("build")
        .args(["--package", "longshore-cli", "--package", "longshore-soak"])
        .check()?;
    let programs = paths::target().join("debug");
    // Hours of it must not be in anybody's way.
    Run::new("nice")
        .args(["-n", "19"])
        .arg(programs.join("longshore-soak"))
        .args(&args.args)
        .dir(paths::root())
        .env("LONGSHORE", programs.join("longshore"))
        .check()
}
