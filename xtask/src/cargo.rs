//! Calling cargo: always the one that runs us, always on the committed lock file.

use std::path::PathBuf;

use anyhow::Result;

use crate::paths;
use crate::shell::Run;

/// `cargo SUBCOMMAND --locked` in the root of the checkout.
pub(crate) fn locked(subcommand: &str) -> Run {
    plain(subcommand).arg("--locked")
}

/// Brings our programs up to date, not optimised; gives the folder that they are in.
///
/// They come with their packages' own tests of them, and of the choice of packages whose unit tests are run: for
/// another one cargo would choose the features of what they depend on anew, and compile most of that once more.
pub(crate) fn programs() -> Result<PathBuf> {
    suites(&["program", "driver"]).arg("--no-run").check()?;
    Ok(paths::target().join("debug"))
}

/// `cargo test` of these suites of integration tests, of whichever packages; see [`programs`].
pub(crate) fn suites(names: &[&str]) -> Run {
    let chosen = names.iter().flat_map(|name| ["--test", name]);
    // What measures pieces of code has criterion, and with it features that nothing else has.
    let packages = ["--workspace", "--exclude", "longshore-micro"];
    locked("test").args(packages).args(chosen)
}

/// `cargo SUBCOMMAND` in the root of the checkout.
pub(crate) fn plain(subcommand: &str) -> Run {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Run::new(cargo).dir(paths::root()).arg(subcommand)
}
