//! `forebay loader`: who reads what when, and how fast.

use anyhow::Result;
use clap::{Args, Subcommand};
use forebay_loader::{Loader as Stream, Plan, StreamOptions, Transform};
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::record::TRAIN;
use forebay_schemas::run::Run;
use forebay_store::{Dataset, VersionSpec};
use forebay_trainer::membership::owner;
use serde_json::json;

use crate::config::{Settings, runtime};
use crate::output;

/// Shows the order of samples, and measures how fast they come
#[derive(Args)]
#[command(
    after_help = "Example:\n  forebay loader plan examples/rust-code-gpt.toml --step 100 --replicas 3\n  forebay loader bench examples/rust-code-gpt.toml --steps 200"
)]
pub(crate) struct Loader {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Shows which rows the micro-batches of some steps take, and which replica computes them
    Plan {
        #[command(flatten)]
        settings: Settings,
        /// First step
        #[arg(long, default_value_t = 0)]
        step: u64,
        /// Number of steps
        #[arg(long, default_value_t = 1)]
        steps: u64,
        /// Replicas among which the micro-batches are dealt; the rows do not depend on it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
        replicas: u32,
        /// Prints {identity, rows, block, micro_batches: [{step, index, replica, epoch, rows, digest}]}
        #[arg(long)]
        json: bool,
    },
    /// Reads, decodes and augments the batches of some steps and throws them away
    Bench {
        #[command(flatten)]
        settings: Settings,
        /// Number of steps
        #[arg(long, default_value_t = 100)]
        steps: u64,
        /// Decoding threads; 0 is one a core
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// Prints {samples, seconds, samples_per_second, megabytes, waits}
        #[arg(long)]
        json: bool,
    },
}

impl Loader {
    pub(crate) fn run(self) -> Result<()> {
        match self.action {
            Action::Plan { settings, step, steps, replicas, json } => {
                let Some(run) = settings.run()? else { return Ok(()) };
                plan(&run, step, steps, replicas, json)
            }
            Action::Bench { settings, steps, threads, json } => {
                let Some(run) = settings.run()? else { return Ok(()) };
                bench(&run, steps, threads, json)
            }
        }
    }
}

async fn open(run: &Run) -> Result<(Dataset, DatasetManifest)> {
    let dataset = Dataset::open(&run.dataset).await?;
    let manifest = dataset.resolve(&run.version.parse::<VersionSpec>()?).await?;
    Ok((dataset, manifest))
}

fn plan(run: &Run, step: u64, steps: u64, replicas: u32, json: bool) -> Result<()> {
    let (_, manifest) = runtime()?.block_on(open(run))?;
    let rows = manifest.tables.get(TRAIN).map_or(0, |table| table.rows);
    let plan = Plan::new(manifest.identity(), run.seed, rows, run.batch.micro_batches, run.batch.micro_batch_size)?;
    let mut listed = Vec::new();
    for step in step..step.saturating_add(steps) {
        for index in 0..run.batch.micro_batches {
            let draws = plan.micro_batch(step, index).draws;
            let rows: Vec<u64> = draws.iter().map(|draw| draw.row).collect();
            let epoch = draws.first().map_or(0, |draw| draw.epoch);
            let replica = owner(index, run.batch.micro_batches, replicas);
            listed.push((step, index, replica, epoch, rows, plan.samples_digest(step, index)));
        }
    }
    if json {
        let listed: Vec<_> = listed
            .into_iter()
            .map(|(step, index, replica, epoch, rows, digest)| json!({"step": step, "index": index, "replica": replica, "epoch": epoch, "rows": rows, "digest": digest}))
            .collect();
        return output::json(&json!({"identity": manifest.identity(), "rows": rows, "micro_batches": listed}));
    }
    let lines: Vec<Vec<String>> = listed
        .into_iter()
        .map(|(step, index, replica, epoch, rows, digest)| {
            let rows: Vec<String> = rows.iter().map(u64::to_string).collect();
            vec![step.to_string(), index.to_string(), replica.to_string(), epoch.to_string(), digest.short(), rows.join(" ")]
        })
        .collect();
    output::table(&["step", "micro-batch", "replica", "epoch", "digest", "rows"], &lines)
}

fn bench(run: &Run, steps: u64, threads: usize, json: bool) -> Result<()> {
    let runtime = runtime()?;
    let (dataset, manifest) = runtime.block_on(open(run))?;
    let transform = Transform::training(run, &manifest)?;
    let loader = runtime.block_on(Stream::open(
        &dataset,
        &manifest,
        TRAIN,
        run.seed,
        run.batch.micro_batches,
        run.batch.micro_batch_size,
        transform,
    ))?;
    let options = StreamOptions { threads, ..StreamOptions::default() };
    let report = forebay_loader::bench(&loader, runtime.handle().clone(), steps.saturating_mul(run.batch.micro_batches.into()), options)?;
    if json {
        return output::json(&report);
    }
    output::line(format!(
        "{} samples in {:.2} s: {:.0} samples/s, {:.1} MB/s of batches",
        output::grouped(report.samples),
        report.seconds,
        report.samples_per_second,
        report.megabytes / report.seconds.max(1e-9)
    ))?;
    output::json(&report.waits)
}
