//! `forebay train`: a coordinator and N replicas on this host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use forebay_trainer::Wish;

use crate::coordinator::Opened;
use crate::run_view::{RunView, finish};
use crate::supervisor::{Invitation, Supervisor};
use forebay::config::{Settings, runtime};

/// Trains a model: a coordinator and N replicas on this host, that may die and come back
///
/// The samples of a step are a function of the dataset version, the seed and the step, so the result does not depend on the
/// number of replicas or on which of them failed. Killed and started again, it goes on from the last checkpoint.
#[derive(Args)]
#[command(
    after_help = "Example:\n  forebay train examples/rust-code-gpt.toml --replicas 2\n  forebay train examples/rust-code-gpt.toml --set name=longer --set batch.steps=1000 --json"
)]
pub(crate) struct Train {
    #[command(flatten)]
    settings: Settings,
    /// Replica processes; one that dies is started again
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    replicas: u32,
    /// auto, cpu, cuda or cuda:N; auto gives each replica one of the GPUs, where there are any
    #[arg(long, default_value_t)]
    device: Wish,
    /// Address of the coordinator, port 0 for any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
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

impl Train {
    pub(crate) fn run(self) -> Result<()> {
        let Some(mut run) = self.settings.run()? else { return Ok(()) };
        let replicas = self.replicas as usize;
        runtime()?.block_on(async {
            let opened = Opened::open(&mut run).await?;
            let view = Arc::new(RunView::new(&run, self.events.as_deref())?);
            let token = secret()?;
            let service = opened.start(&run, self.listen, None, token.clone(), replicas, view.clone()).await?;
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let threads = if run.elastic.threads > 0 { run.elastic.threads as usize } else { (cores / replicas).max(1) };
            let invitation = Invitation { coordinator: service.url(), token, threads, device: self.device };
            let (abandon, abandoned) = tokio::sync::oneshot::channel();
            let said = view.clone();
            let abandon = std::sync::Mutex::new(Some(abandon));
            let supervisor = Supervisor::start(
                replicas,
                invitation,
                move |line| said.note(line),
                move || {
                    // The receiver is gone when the run has ended, and then nobody needs to know.
                    let _ = abandon.lock().ok().and_then(|mut abandon| abandon.take()).map(|abandon| abandon.send(()));
                },
            )?;
            let summary = tokio::select! {
                summary = service.wait() => summary?,
                _ = abandoned => {
                    // Replicas end by themselves when the run is done; only otherwise is that a failure.
                    match tokio::time::timeout(std::time::Duration::from_secs(5), service.wait()).await {
                        Ok(summary) => summary?,
                        Err(_) => anyhow::bail!("run `{}`: every replica has ended, see their errors above", run.name),
                    }
                }
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; the same command goes on from the last checkpoint"),
            };
            view.finish();
            supervisor.stop();
            finish(&run, &opened.manifest, &opened.checkpoints, &summary, self.report.as_deref(), self.json).await
        })
    }
}

/// A secret for the run's replicas: 32 bytes of the system's randomness, hexadecimal.
fn secret() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(forebay_schemas::Digest::from_bytes(bytes).to_string())
}
