//! Checkpoints in the background: a snapshot is encoded, staged and published while training goes on.
//!
//! Promises: one checkpoint at a time, in order; nothing becomes visible without the coordinator's consent. One that failed is
//! told and left behind: the next one is due soon, and training does not stop for it. The last one of a run is waited for.

use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_schemas::checkpoint::{CheckpointManifest, FORMAT};
use forebay_schemas::wire::{Mark, RunInfo};
use forebay_schemas::{Digest, Position};
use forebay_store::Checkpoints;
use tokio::runtime::Handle;

use super::Snapshot;
use crate::error::{Error, Kind, Result};
use forebay_trainer::membership::Session;

/// Writes the checkpoints of one replica.
pub(crate) struct Writer {
    target: Arc<Target>,
    pending: Option<JoinHandle<Result<bool>>>,
}

/// Where checkpoints go and who publishes them.
pub(crate) struct Target {
    pub(crate) runtime: Handle,
    pub(crate) checkpoints: Checkpoints,
    /// Shared with the training thread, which takes it for itself only between two generations.
    pub(crate) session: Arc<RwLock<Session>>,
    pub(crate) info: RunInfo,
    /// In which the replica is fed.
    pub(crate) order: Digest,
    /// Name of the replica, part of the names of its objects.
    pub(crate) writer: String,
}

impl Writer {
    pub(crate) fn new(target: Target) -> Self {
        Self { target: Arc::new(target), pending: None }
    }

    /// Begins to write a state, whose loss is given where this replica knows it; waits for the checkpoint before it, which is
    /// the only one that may be under way.
    pub(crate) fn write(&mut self, snapshot: Snapshot, state: Mark, loss: Option<f64>) -> Result<()> {
        if let Err(error) = self.wait() {
            tracing::warn!(%error, "a checkpoint was not published");
        }
        let target = Arc::clone(&self.target);
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || target.publish(&snapshot, state, loss));
        self.pending = Some(thread.map_err(|error| Error::with_source(Kind::Internal, "the checkpoint thread cannot start", error))?);
        Ok(())
    }

    /// Looks whether the checkpoint under way has ended, and tells if it failed.
    pub(crate) fn look(&mut self) {
        if self.pending.as_ref().is_some_and(JoinHandle::is_finished)
            && let Err(error) = self.wait()
        {
            tracing::warn!(%error, "a checkpoint was not published");
        }
    }

    /// Waits for the checkpoint under way; its error if it failed.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        pending.join().map_err(|_| Error::new(Kind::Internal, "the checkpoint thread panicked"))?.map(drop)
    }
}

impl Target {
    /// Encodes, stages and publishes; false if one of this or a later step is there already.
    fn publish(&self, snapshot: &Snapshot, state: Mark, loss: Option<f64>) -> Result<bool> {
        let encoded = snapshot.encode()?;
        let staged = async {
            let stage = |name, bytes| self.checkpoints.stage(state.step, state.generation, &self.writer, name, bytes);
            let model = stage("model.safetensors", encoded.model.clone()).await?;
            Ok::<_, Error>((model, stage("optimizer.safetensors", encoded.optimizer.clone()).await?))
        };
        let (model, optimizer) = self.runtime.block_on(staged)?;
        let run = &self.info.run;
        let manifest = CheckpointManifest {
            format: FORMAT,
            run: run.name.clone(),
            position: Position {
                dataset: self.info.dataset.identity,
                seed: run.seed,
                step: state.step,
                micro_batches: run.batch.micro_batches,
                micro_batch_size: run.batch.micro_batch_size,
            },
            generation: state.generation,
            created_unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
            program: format!("forebay {}", env!("CARGO_PKG_VERSION")),
            dataset: self.info.dataset.clone(),
            config_digest: self.info.config_digest,
            config: serde_json::to_value(run).map_err(|error| Error::with_source(Kind::Internal, "settings of the run", error))?,
            order: Some(self.order),
            samples: state.step * run.global_batch(),
            loss,
            weights_sha256: encoded.weights_sha256,
            model,
            optimizer,
        };
        let session = self.session.read().map_err(|_| Error::new(Kind::Internal, "the training thread panicked"))?;
        session.publish(manifest)
    }
}
