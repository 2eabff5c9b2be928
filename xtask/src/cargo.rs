//! Calling cargo: always the one that runs us, always on the committed lock file.

use crate::paths;
use crate::shell::Run;

/// `cargo SUBCOMMAND --locked` in the root of the checkout.
pub(crate) fn locked(subcommand: &str) -> Run {
    plain(subcommand).arg("--locked")
}

/// `cargo SUBCOMMAND` in the root of the checkout.
pub(crate) fn plain(subcommand: &str) -> Run {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Run::new(cargo).dir(paths::root()).arg(subcommand)
}
