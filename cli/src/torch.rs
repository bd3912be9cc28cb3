//! The program that computes on tensors.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Environment variable that carries the secret of a run to its replicas.
pub const TOKEN_VARIABLE: &str = "FOREBAY_TOKEN";

/// The file of `forebay-torch`: beside this program's own.
pub fn program() -> Result<PathBuf> {
    Ok(std::env::current_exe().context("cannot find this program's own file")?.with_file_name("forebay-torch"))
}
