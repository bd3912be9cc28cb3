//! `forebay coordinator`: the membership service of one run, on its own, as a cluster starts it.
//!
//! Also holds what `train` shares with it: opening the run and showing its progress.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use forebay_loader::{Transform, pin};
use forebay_schemas::checkpoint::DatasetVersionRef;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::run::Run;
use forebay_store::{Checkpoints, Dataset, VersionSpec};
use forebay_trainer::membership::{Coordinator as Service, CoordinatorOptions, began_with};

use crate::run_view::{RunView, finish};
use forebay::config::{Settings, runtime};
use forebay::failure::Usage;
use forebay::torch::TOKEN_VARIABLE;

/// Runs the coordinator of a training run; replicas join it over the network
///
/// It keeps the membership and the committed step, and is the only one that publishes checkpoints. Its state is in the run's
/// folder: killed and started again, here or on another host, it goes on where the replicas are, which wait for it for half a
/// minute. Of two for one run the second fences off the first.
#[derive(Args)]
#[command(
    after_help = "Example:\n  export FOREBAY_TOKEN=$(openssl rand -hex 32)\n  forebay coordinator examples/rust-code-gpt.toml --listen 0.0.0.0:7070 --advertise http://head:7070 --expect 4"
)]
pub(crate) struct Coordinator {
    #[command(flatten)]
    settings: Settings,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// URL by which replicas find it when it was started elsewhere after a failure; the listening address if left out
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Starts the first step as soon as so many replicas have joined, or after elastic.gather
    #[arg(long, default_value_t = 1)]
    expect: usize,
    /// Secret that replicas must show
    #[arg(long, env = TOKEN_VARIABLE, hide_env_values = true)]
    token: Option<String>,
    /// Appends every event of the run to this file as it happens, one JSON object a line
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Where the HTML report goes; beside the checkpoints if left out
    #[arg(long)]
    report: Option<PathBuf>,
    /// Prints {step, samples, loss, weights_sha256, seconds, faults, report}
    #[arg(long)]
    json: bool,
}

impl Coordinator {
    pub(crate) fn run(self) -> Result<()> {
        let Some(mut run) = self.settings.run()? else { return Ok(()) };
        let token = self.token.filter(|token| token.len() >= 16);
        let token = token.ok_or_else(|| {
            Usage(format!("{TOKEN_VARIABLE} is not set: expected a secret of at least 16 characters, the same for all replicas"))
        })?;
        let runtime = runtime()?;
        runtime.block_on(async {
            let opened = Opened::open(&mut run).await?;
            let view = Arc::new(RunView::new(&run, self.events.as_deref())?);
            let service = opened.start(&run, self.listen, self.advertise, token, self.expect, view.clone()).await?;
            view.note(&format!("coordinator of run {} on {}", run.name, service.url()));
            let summary = service.wait().await?;
            view.finish();
            finish(&run, &opened.manifest, &opened.checkpoints, &summary, self.report.as_deref(), self.json).await
        })
    }
}

/// The dataset version and the checkpoints of a run.
pub(crate) struct Opened {
    /// The version that `run.version` means.
    pub(crate) manifest: DatasetManifest,
    /// The same for a checkpoint's manifest.
    pub(crate) dataset: DatasetVersionRef,
    /// Where the run's checkpoints and state lie.
    pub(crate) checkpoints: Checkpoints,
}

impl Opened {
    /// Resolves the dataset version and the tokenizer, opens the checkpoints, and makes `batch.epochs` steps. A run that has begun
    /// keeps its own version.
    pub(crate) async fn open(run: &mut Run) -> Result<Self> {
        pin(run).await?;
        let (opened, manifest, mut dataset) = resolve(&run.dataset, &run.version).await?;
        for mixed in &run.mixture {
            dataset.mixed.push(resolve(&mixed.dataset, &mixed.version).await?.2);
        }
        let checkpoints = Checkpoints::open(&run.checkpoints, &run.name).await?;
        let began = began_with(&checkpoints).await?;
        if began.is_none() {
            // What no replica could begin with is said once, here.
            Transform::training(run, &opened, &manifest).await?;
        }
        if run.batch.epochs > 0 {
            let version = began.unwrap_or_else(|| dataset.clone());
            run.batch.steps = crate::loader::steps(run, &version).await?;
            run.batch.epochs = 0;
        }
        Ok(Self { manifest, dataset, checkpoints })
    }

    /// Starts the coordinator.
    pub(crate) async fn start(
        &self,
        run: &Run,
        listen: SocketAddr,
        advertise: Option<String>,
        token: String,
        expected: usize,
        view: Arc<RunView>,
    ) -> Result<Service> {
        let options = CoordinatorOptions {
            run: run.clone(),
            dataset: self.dataset.clone(),
            checkpoints: self.checkpoints.clone(),
            listen,
            advertise,
            token,
            expected,
            observer: view,
        };
        Service::start(options).await.with_context(|| format!("coordinator of run `{}`", run.name))
    }
}

async fn resolve(url: &str, version: &str) -> Result<(Dataset, DatasetManifest, DatasetVersionRef)> {
    let dataset = Dataset::open(url).await?;
    let manifest = dataset.resolve(&version.parse::<VersionSpec>()?).await?;
    let url = dataset.location().url().to_string();
    let named = DatasetVersionRef { url, version: manifest.version, identity: manifest.identity(), mixed: Vec::new() };
    Ok((dataset, manifest, named))
}
