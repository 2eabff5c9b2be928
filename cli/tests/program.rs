//! The program as people meet it first. That it is tested here has cargo build it as tests of all packages are
//! built, which `cargo xtask test` relies on (`xtask/src/cargo.rs`).

use std::process::{Command, Output};

fn longshore(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.args(args).output().expect("it was built")
}

#[test]
fn help_names_what_it_can_do() {
    let output = longshore(&["--help"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    for command in ["convert", "info", "run", "get", "why"] {
        let named = |line: &str| line.trim_start().starts_with(command);
        assert!(said.lines().any(named), "{command} is not in:\n{said}");
    }
}

#[test]
fn what_it_cannot_do_is_refused_by_its_name() {
    let output = longshore(&["sink"]);
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("'sink'"), "{said}");
}
