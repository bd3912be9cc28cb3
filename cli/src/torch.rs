//! The program that computes on tensors.

use std::process::Command;

use anyhow::{Context, Result};

/// Environment variable that carries the secret of a run to its replicas.
pub const TOKEN_VARIABLE: &str = "FOREBAY_TOKEN";

/// A call of `forebay-torch`, which lies beside this program.
pub fn command() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?.with_file_name("forebay-torch"));
    // libgomp's threads spin while they wait; with several programs on a host they would take each other's cores.
    if std::env::var_os("OMP_WAIT_POLICY").is_none() {
        command.env("OMP_WAIT_POLICY", "passive");
    }
    Ok(command)
}
