//! Models: one file an architecture, all behind one small trait.
//!
//! Promises: the initial weights are a function of the seed and the parameters' names alone; what a micro-batch adds to the
//! gradient and to the running statistics is a function of the weights and the micro-batch, not of who computed it.
//! Deliberately absent: dropout, since nothing here may depend on a generator's state.

mod batch_norm;
mod gpt;
mod initial;
mod input;
mod mlp;
mod resnet;
#[cfg(test)]
mod tests;
mod vit;

use forebay_loader::Transform;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::run::Model as Architecture;
use tch::{Device, Tensor};

use crate::error::{Error, Kind, Result};
pub use batch_norm::absorb;
pub use input::Input;

/// A tensor and its name in checkpoints.
pub type Named = (String, Tensor);

/// What the forward pass of a training micro-batch gives.
pub struct Forward {
    /// Mean loss over the targets of the micro-batch, a scalar with its graph.
    pub loss: Tensor,
    /// Statistics of this micro-batch for the running statistics: the buffers' values one after the other, shape
    /// `[elements of all buffers]`; none for a model without buffers.
    pub statistics: Option<Tensor>,
}

/// What a model scored on samples that it was not trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Sum of the losses of all targets, in nats.
    pub loss_sum: f64,
    /// Targets: tokens or labels.
    pub targets: u64,
    /// Targets that the model thought likeliest.
    pub correct: u64,
}

impl std::ops::AddAssign for Scores {
    fn add_assign(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        self.targets += other.targets;
        self.correct += other.correct;
    }
}

/// A model with its weights.
pub trait Model {
    /// Trained tensors, in an order that is the same in every process.
    fn parameters(&self) -> &[Named];

    /// Running statistics: not trained, saved with the weights.
    fn buffers(&self) -> &[Named];

    /// Forward pass in training mode.
    fn loss(&self, input: &Input) -> Result<Forward>;

    /// Forward pass in evaluation mode, without a graph.
    fn score(&self, input: &Input) -> Result<Scores>;

    /// Language models: logits of the token after the last, for ids of shape `[1, length]`; shape `[vocabulary]`.
    fn next_token(&self, _ids: &Tensor) -> Result<Tensor> {
        Err(Error::new(Kind::Invalid, "the model of this run classifies images: expected a language model"))
    }

    /// Where the model is, and its inputs have to be.
    fn device(&self) -> Device {
        self.parameters().first().map_or(Device::Cpu, |(_, tensor)| tensor.device())
    }

    /// A micro-batch of the right shape for a replica that was given none; its result must be weighted with zero.
    fn blank(&self) -> Input;
}

/// What the data demands of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Predict the next token.
    Text {
        /// Number of token ids.
        vocabulary: i64,
        /// Tokens of a sample.
        length: i64,
    },
    /// Tell which class a picture shows.
    Images {
        /// Number of classes.
        classes: i64,
    },
}

impl Task {
    /// The task that a dataset version sets, of which `transform` makes samples.
    pub fn of(dataset: &DatasetManifest, transform: &Transform) -> Result<Self> {
        if let Transform::Documents { tokenizer, length, .. } = transform {
            return Ok(Self::Text { vocabulary: i64::from(tokenizer.vocabulary()), length: i64::from(*length) });
        }
        let statistics = &dataset.statistics;
        if let (Some(tokenizer), Some(length)) = (&dataset.tokenizer, statistics.sequence_length) {
            return Ok(Self::Text { vocabulary: i64::from(tokenizer.vocabulary), length: i64::from(length) });
        }
        if let Some(classes) = &statistics.classes {
            return Ok(Self::Images { classes: classes.len() as i64 });
        }
        let message = format!("dataset version {}: found neither a tokenizer nor classes, expected one of them", dataset.version);
        Err(Error::new(Kind::Corrupt, message))
    }
}

/// A model on `device`, with initial weights drawn from `seed`.
pub fn build(architecture: &Architecture, task: &Task, seed: u64, device: Device) -> Result<Box<dyn Model>> {
    let initial = initial::Initializer::new(seed, device);
    Ok(match (architecture, task) {
        (Architecture::Gpt { layers, heads, width }, Task::Text { vocabulary, length }) => {
            Box::new(gpt::Gpt::new(gpt::Shape::new(*layers, *heads, *width, *vocabulary, *length), initial))
        }
        (Architecture::Resnet { depth, image_size }, Task::Images { classes }) => {
            Box::new(resnet::Resnet::new(*depth, i64::from(*image_size), *classes, initial))
        }
        (Architecture::Vit { layers, heads, width, patch, image_size }, Task::Images { classes }) => {
            Box::new(vit::Vit::new(vit::Shape::new(*layers, *heads, *width, *patch, *image_size, *classes), initial))
        }
        (Architecture::Mlp { width, image_size }, Task::Images { classes }) => {
            Box::new(mlp::Mlp::new(i64::from(*width), i64::from(*image_size), *classes, initial))
        }
        (Architecture::Gpt { .. }, Task::Images { .. }) => return Err(mismatch("gpt", "images", "resnet, vit or mlp")),
        (Architecture::Resnet { .. }, Task::Text { .. }) => return Err(mismatch("resnet", "text", "gpt")),
        (Architecture::Vit { .. }, Task::Text { .. }) => return Err(mismatch("vit", "text", "gpt")),
        (Architecture::Mlp { .. }, Task::Text { .. }) => return Err(mismatch("mlp", "text", "gpt")),
    })
}

fn mismatch(found: &str, data: &str, expected: &str) -> Error {
    Error::new(Kind::Invalid, format!("setting `model.kind`: found {found} for a dataset of {data}, expected {expected}"))
}

/// Scores of logits `[targets, classes]` against labels `[targets]`, of which so many count.
fn score(logits: &Tensor, labels: &Tensor, counted: u64) -> Scores {
    let loss = logits.cross_entropy_loss::<Tensor>(labels, None, tch::Reduction::Sum, input::NO_TARGET, 0.0);
    let correct = logits.argmax(-1, false).eq_tensor(labels).sum(tch::Kind::Int64);
    Scores { loss_sum: loss.double_value(&[]), targets: counted, correct: correct.int64_value(&[]) as u64 }
}
