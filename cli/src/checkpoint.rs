//! `forebay checkpoint`: log, show, verify.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use forebay::config::runtime;
use forebay::output;
use forebay::runs::{RunName, open, pick};

/// Looks at the checkpoints of a run and checks their bytes
#[derive(Args)]
#[command(
    after_help = "Example:\n  forebay checkpoint log lake/checkpoints rust-code-gpt\n  forebay checkpoint verify lake/checkpoints rust-code-gpt --step 100"
)]
pub(crate) struct Checkpoint {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists the checkpoints of a run, newest first
    Log {
        #[command(flatten)]
        run: RunName,
        /// Prints {"checkpoints": [manifest, …]}
        #[arg(long)]
        json: bool,
    },
    /// Shows one checkpoint and where its weights come from
    Show {
        #[command(flatten)]
        run: RunName,
        /// The step; the newest if left out
        #[arg(long)]
        step: Option<u64>,
        /// Prints the manifest
        #[arg(long)]
        json: bool,
    },
    /// Reads every byte of a checkpoint and compares with its digests
    Verify {
        #[command(flatten)]
        run: RunName,
        /// The step; all if left out
        #[arg(long)]
        step: Option<u64>,
        /// Prints {"verified": [step, …]}
        #[arg(long)]
        json: bool,
    },
}

impl Checkpoint {
    pub(crate) fn run(self) -> Result<()> {
        runtime()?.block_on(async {
            match self.action {
                Action::Log { run, json } => log(&run, json).await,
                Action::Show { run, step, json } => show(&run, step, json).await,
                Action::Verify { run, step, json } => verify(&run, step, json).await,
            }
        })
    }
}

async fn log(run: &RunName, json: bool) -> Result<()> {
    let mut manifests = open(run).await?.log().await?;
    manifests.reverse();
    if json {
        return output::json(&json!({"checkpoints": manifests}));
    }
    let lines: Vec<Vec<String>> = manifests
        .iter()
        .map(|m| {
            vec![
                output::grouped(m.position.step),
                output::utc(m.created_unix_ms),
                m.generation.to_string(),
                output::grouped(m.samples),
                m.loss.map_or(String::new(), |loss| format!("{loss:.4}")),
                output::grouped(m.model.bytes + m.optimizer.bytes),
                m.weights_sha256.chars().take(12).collect(),
                format!("v{} {}", m.dataset.version, m.dataset.url),
            ]
        })
        .collect();
    output::table(&["step", "published (UTC)", "generation", "samples", "loss", "bytes", "weights", "dataset"], &lines)
}

async fn show(run: &RunName, step: Option<u64>, json: bool) -> Result<()> {
    let checkpoints = open(run).await?;
    let m = pick(&checkpoints, step).await?;
    if json {
        return output::json(&m);
    }
    output::line(format!("step {} of run {}", m.position.step, m.run))?;
    output::line(format!("  published  {} UTC by {}, generation {}", output::utc(m.created_unix_ms), m.program, m.generation))?;
    output::line(format!("  weights    sha256 {}", m.weights_sha256))?;
    output::line(format!("  model      {} ({} bytes)", m.model.path, output::grouped(m.model.bytes)))?;
    output::line(format!("  optimizer  {} ({} bytes)", m.optimizer.path, output::grouped(m.optimizer.bytes)))?;
    output::line(format!("  dataset    version {} of {}, identity {}", m.dataset.version, m.dataset.url, m.dataset.identity))?;
    let position = m.position;
    output::line(format!(
        "  position   step {}, {} samples of {} × {} a step, seed {}",
        position.step,
        output::grouped(m.samples),
        position.micro_batches,
        position.micro_batch_size,
        position.seed
    ))?;
    if let Some(order) = m.order {
        output::line(format!("  order      {order}"))?;
    }
    m.loss.map_or(Ok(()), |loss| output::line(format!("  loss       {loss:.4} (training, last step)")))
}

async fn verify(run: &RunName, step: Option<u64>, json: bool) -> Result<()> {
    let checkpoints = open(run).await?;
    let manifests = match step {
        Some(step) => vec![checkpoints.at(step).await?],
        None => checkpoints.log().await?,
    };
    if manifests.is_empty() {
        anyhow::bail!("`{}`: no checkpoint is published there", checkpoints.location().url());
    }
    for manifest in &manifests {
        checkpoints.verify(manifest).await?;
        if !json {
            output::line(format!(
                "step {}: {} bytes as published",
                manifest.position.step,
                output::grouped(manifest.model.bytes + manifest.optimizer.bytes)
            ))?;
        }
    }
    if json {
        output::json(&json!({"verified": manifests.iter().map(|m| m.position.step).collect::<Vec<_>>()}))?;
    }
    Ok(())
}
