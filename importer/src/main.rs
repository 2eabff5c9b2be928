//! The importer pod's container: one import, as its environment says.

use std::process::ExitCode;

fn main() -> ExitCode {
    longshore_transfer::give_memory_back();
    // Before anything could open a TLS connection; it fails only if that was done already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    longshore_importer::pod::main()
}
