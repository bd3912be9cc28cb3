//! `forebay replica`: one training process, as a cluster starts it.

use anyhow::Result;
use clap::Args;
use forebay_torch::run::{ReplicaOptions, replica};
use forebay_trainer::Wish;

use forebay::failure::Usage;
use forebay::torch::TOKEN_VARIABLE;

/// Runs one replica: joins the coordinator, trains until the run is done
///
/// It needs nothing but the coordinator's address and the secret: the run's settings come from the coordinator. Kill it, freeze
/// it or add more at any moment.
#[derive(Args)]
#[command(after_help = "Example:\n  FOREBAY_TOKEN=… forebay replica --coordinator http://head:7070")]
pub(crate) struct Replica {
    /// URL of the coordinator
    #[arg(long)]
    coordinator: String,
    /// Secret of the run
    #[arg(long, env = TOKEN_VARIABLE, hide_env_values = true)]
    token: Option<String>,
    /// Name in reports; host and process id if left out
    #[arg(long)]
    name: Option<String>,
    /// Address under which the other replicas reach this one
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// CPU threads; 0 is one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
    #[arg(long, default_value_t)]
    device: Wish,
    /// Place among the replicas of this host, from 0; of several GPUs it takes that one
    #[arg(long, env = "LOCAL_RANK", default_value_t = 0)]
    place: usize,
}

impl Replica {
    pub(crate) fn run(self) -> Result<()> {
        let token = self
            .token
            .ok_or_else(|| Usage(format!("{TOKEN_VARIABLE} is not set: expected the secret that the coordinator was started with")))?;
        let name = self.name.unwrap_or_else(|| format!("{}-{}", self.host, std::process::id()));
        let Self { coordinator, host, threads, device, place, .. } = self;
        let summary = replica(ReplicaOptions { coordinator, token, name, host, threads, device, place, watch: None })?;
        tracing::info!(step = summary.step, "replica is done");
        Ok(())
    }
}
