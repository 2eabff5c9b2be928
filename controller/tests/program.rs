//! The controllers' process, started by hand. That it is tested here has cargo build it as tests of all packages
//! are built, which `cargo xtask test` relies on (`xtask/src/cargo.rs`).

use std::process::Command;

#[test]
fn without_its_settings_it_ends_and_names_what_it_needs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-controller"));
    let output = command.env_clear().output().expect("it was built");
    assert!(!output.status.success(), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("IMPORTER_IMAGE"), "{said}");
}
