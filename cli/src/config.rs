//! Settings of a verb: file < `FOREBAY_SET_…` < `--set`, checked, printable.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use forebay_schemas::pipeline::Pipeline;
use forebay_schemas::run::Run;
use forebay_schemas::settings::layered;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Usage;
use crate::output;

/// Where settings come from.
#[derive(Args)]
pub struct Settings {
    /// The TOML file of the pipeline or run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Overrides one setting; may be repeated. The environment does the same: FOREBAY_SET_DEDUP__NEAR=false
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Prints the settings in force as TOML and stops
    #[arg(long)]
    pub print_config: bool,
}

impl Settings {
    /// The pipeline; none if it was only to be printed.
    pub fn pipeline(&self) -> Result<Option<Pipeline>> {
        let pipeline: Pipeline = self.read()?;
        pipeline.validate()?;
        self.or_print(pipeline)
    }

    /// The run; none if it was only to be printed.
    pub fn run(&self) -> Result<Option<Run>> {
        let run: Run = self.read()?;
        run.validate()?;
        self.or_print(run)
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let name = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Usage(format!("configuration `{name}`: {error}; expected a readable TOML file, see examples/")))?;
        let environment = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Ok(layered(&name, &text, environment, &self.set)?)
    }

    fn or_print<T: Serialize>(&self, settings: T) -> Result<Option<T>> {
        if !self.print_config {
            return Ok(Some(settings));
        }
        output::line(toml::to_string(&settings).context("settings as TOML")?.trim_end())?;
        Ok(None)
    }
}

/// The async runtime of a verb.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}
