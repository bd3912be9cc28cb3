//! The runs of a place and their checkpoints, as verbs name them.

use anyhow::Result;
use clap::Args;
use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_store::Checkpoints;

use crate::failure::Usage;

/// Which run.
#[derive(Args)]
pub struct RunName {
    /// URL or path under which runs keep their checkpoints
    pub checkpoints: String,
    /// Name of the run; may be left out where there is only one
    pub run: Option<String>,
}

/// The checkpoints of the named run, or of the only one.
pub async fn open(run: &RunName) -> Result<Checkpoints> {
    let name = match &run.run {
        Some(name) => name.clone(),
        None => {
            let runs = Checkpoints::runs(&run.checkpoints).await?;
            match runs.as_slice() {
                [only] => only.clone(),
                [] => return Err(Usage(format!("`{}`: no run has stored anything there", run.checkpoints)).into()),
                _ => return Err(Usage(format!("`{}`: name one of the runs {}", run.checkpoints, runs.join(", "))).into()),
            }
        }
    };
    Ok(Checkpoints::open(&run.checkpoints, &name).await?)
}

/// The checkpoint of `step`, or the newest.
pub async fn pick(checkpoints: &Checkpoints, step: Option<u64>) -> Result<CheckpointManifest> {
    if let Some(step) = step {
        return Ok(checkpoints.at(step).await?);
    }
    let newest = checkpoints.latest().await?;
    newest.ok_or_else(|| anyhow::anyhow!("`{}`: no checkpoint is published there; train the run first", checkpoints.location().url()))
}
