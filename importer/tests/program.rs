//! The pod's program, started by hand. That it is tested here has cargo build it as tests of all packages are
//! built, which `cargo xtask test` relies on (`xtask/src/cargo.rs`).

use std::process::Command;

#[test]
fn without_an_import_to_do_it_ends_and_names_what_it_needs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-importer"));
    let output = command.env_clear().output().expect("it was built");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("IMPORTER_"), "{said}");
}
