//! The verbs that compute on tensors, handed over to the program that has libtorch.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::Result;
use clap::Args;
use forebay::torch;

/// The arguments of a verb, as they came.
#[derive(Args)]
pub(crate) struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

impl Passed {
    /// Goes on as the other program, in the same process; comes back only with an error.
    pub(crate) fn run(self, verb: &str) -> Result<()> {
        let mut command = torch::command()?;
        let error = command.arg0("forebay").arg(verb).args(self.arguments).exec();
        let program = command.get_program().to_string_lossy().into_owned();
        Err(anyhow::Error::new(error).context(format!("cannot start `{program}`, which has to lie beside `forebay`")))
    }
}
