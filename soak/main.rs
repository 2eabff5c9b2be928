//! `cargo xtask soak` ends up here; all there is to it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    longshore_soak::main()
}
