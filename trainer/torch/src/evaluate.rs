//! Loss of a checkpoint on the validation rows of the dataset version that it was trained on.
//!
//! Promises: rows in their stored order, without augmentation, so the same checkpoint always scores the same.

use forebay_loader::StreamOptions;
use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::run::Run;
use forebay_store::Checkpoints;
use tch::Device;
use tokio::runtime::Handle;

use crate::checkpoint;
use crate::error::{Error, Kind, Result, of_loader};
use crate::model::{self, Model, Named, Scores, Task};
use crate::source::Source;

/// How a checkpoint did.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Samples that were scored.
    pub samples: u64,
    /// Tokens that were predicted; text only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Mean loss in nats: of a token, or of a picture.
    pub loss: f64,
    /// e to the loss; text only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Share of pictures whose likeliest class is the right one; images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Loss of a model that knows only how often each token occurs; text only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unigram_entropy_nats: Option<f64>,
}

/// Scores at most `max_samples` validation rows, from the first one on, on `device`; `progress` is told (samples done, samples in all).
///
/// Blocks; not for a thread that runs async tasks.
pub fn evaluate(
    runtime: &Handle,
    checkpoints: &Checkpoints,
    manifest: &CheckpointManifest,
    max_samples: Option<u64>,
    device: Device,
    progress: &dyn Fn(u64, u64),
) -> Result<Evaluation> {
    let (source, run, model) = open(runtime, checkpoints, manifest, device)?;
    let loader = runtime.block_on(source.validation(&run))?;
    let batch_size = (run.batch.micro_batch_size as usize).clamp(16, 256);
    let batches = loader.sequential(runtime.clone(), batch_size, max_samples, StreamOptions::default());
    let total = batches.samples();
    let (mut scores, mut samples) = (Scores::default(), 0);
    progress(0, total);
    for batch in batches {
        let batch = batch.map_err(of_loader)?;
        samples += batch.samples() as u64;
        let input = source.input(batch, device)?;
        input.arrive()?;
        scores += model.score(&input)?;
        progress(samples, total);
    }
    if scores.targets == 0 {
        return Err(Error::new(Kind::Invalid, "found no validation sample to score, expected at least 1"));
    }
    let loss = scores.loss_sum / scores.targets as f64;
    let text = matches!(source.task, Task::Text { .. });
    Ok(Evaluation {
        samples,
        tokens: text.then_some(scores.targets),
        loss,
        perplexity: text.then(|| loss.exp()),
        accuracy: (!text).then(|| scores.correct as f64 / scores.targets as f64),
        unigram_entropy_nats: source.manifest.statistics.unigram_entropy_nats,
    })
}

/// The dataset version, the settings and the model of a checkpoint, on `device`.
pub(crate) fn open(
    runtime: &Handle,
    checkpoints: &Checkpoints,
    manifest: &CheckpointManifest,
    device: Device,
) -> Result<(Source, Run, Box<dyn Model>)> {
    let step = manifest.position.step;
    let run: Run = serde_json::from_value(manifest.config.clone())
        .map_err(|error| Error::with_source(Kind::Corrupt, format!("checkpoint of step {step}: its settings cannot be read"), error))?;
    let (source, bytes) = runtime.block_on(async {
        let source = Source::open(&manifest.dataset, &run).await?;
        Ok::<_, Error>((source, checkpoints.get(&manifest.model).await?))
    })?;
    let model = model::build(&run.model, &source.task, run.seed, device)?;
    let weights: Vec<Named> =
        model.parameters().iter().chain(model.buffers()).map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
    checkpoint::load(&weights, &bytes, &manifest.model.path)?;
    Ok((source, run, model))
}
