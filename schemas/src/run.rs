//! Configuration of a training run: one TOML file, dataset version to checkpoints.
//!
//! The samples of step N are a function of (dataset version, seed, N) and of `batch`; how many replicas there are is not
//! in here, because it decides nothing.

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::Digest;
use crate::settings::{Invalid, check};
use crate::units::Millis;

mod reading;
mod text;

pub use reading::{Cache, Loading, Mixed, Shuffle, Weight};
pub use text::{Scored, Spans, Tokenizing};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Name of the run; its checkpoints lie below `checkpoints` under this name.
    pub name: String,
    /// URL or path of the dataset.
    pub dataset: String,
    /// `latest`, a version number or a tag; resolved once, when the run starts.
    #[serde(default = "default_version", deserialize_with = "text_or_number")]
    pub version: String,
    /// SQL over the columns of the training rows: only rows for which it is true are fed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Weight of `dataset` among `mixture`; without a mixture it says nothing.
    #[serde(default)]
    pub weight: Weight,
    /// URL or path under which runs keep their checkpoints and state.
    pub checkpoints: String,
    /// Seed of the order, of initial weights and of every other draw.
    #[serde(default)]
    pub seed: u64,
    /// Datasets that are mixed in; of one modality, tokenizer and classes with `dataset`, whose validation rows are scored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<Mixed>,
    /// How training rows are shuffled.
    #[serde(default)]
    pub shuffle: Shuffle,
    /// The model.
    pub model: Model,
    /// Steps and batches.
    pub batch: Batch,
    /// How the gradients of a step are summed.
    #[serde(default)]
    pub reduce: Reduce,
    /// Optimizer and schedule.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Random augmentation of training samples.
    #[serde(default)]
    pub augment: Augment,
    /// Of a dataset of documents: by what they become tokens on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Tokenizing>,
    /// How replicas fetch samples.
    #[serde(default)]
    pub loader: Loading,
    /// When checkpoints are written and how many are kept.
    #[serde(default)]
    pub checkpoint: Checkpointing,
    /// Membership.
    #[serde(default)]
    pub elastic: Elastic,
}

fn default_version() -> String {
    "latest".to_owned()
}

// `version = 3` and `--set version=3` are numbers to TOML.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected `latest`, a version number or a tag")]
    enum Version {
        Text(String),
        Number(u64),
    }
    Ok(match Version::deserialize(deserializer)? {
        Version::Text(text) => text,
        Version::Number(number) => number.to_string(),
    })
}

/// Architecture and size of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub enum Model {
    /// Decoder-only transformer: RMSNorm, rotary positions, tied embedding.
    Gpt {
        /// Blocks.
        layers: u32,
        /// Attention heads.
        heads: u32,
        /// Width of the residual stream; a multiple of 2 × heads.
        width: u32,
    },
    /// Residual network; depth 18 (ImageNet shape) or 20 (CIFAR shape), He et al. 2016.
    Resnet {
        /// 18 or 20.
        depth: u32,
        /// Side of the square input, in pixels.
        image_size: u32,
    },
    /// Vision transformer, Dosovitskiy et al. 2021.
    Vit {
        /// Blocks.
        layers: u32,
        /// Attention heads.
        heads: u32,
        /// Width of the residual stream; a multiple of heads.
        width: u32,
        /// Side of a square patch; divides `image_size`.
        patch: u32,
        /// Side of the square input, in pixels.
        image_size: u32,
    },
    /// Perceptron with one hidden layer, for pictures.
    Mlp {
        /// Units of the hidden layer.
        width: u32,
        /// Side of the square input, in pixels.
        image_size: u32,
    },
}

/// Steps and batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Steps of the run; 0 where `epochs` are given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u64,
    /// Instead of `steps`: as many as it takes until all rows of `dataset` were fed so many times. Resolved once, when the run
    /// starts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epochs: u64,
    /// K: micro-batches in a step, whoever computes them.
    pub micro_batches: u32,
    /// B: samples in a micro-batch.
    pub micro_batch_size: u32,
    /// Images only: how a batch holds its pixels.
    #[serde(default)]
    pub pixels: Pixels,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a batch of images holds its pixels. Models compute in 32 bits whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pixels {
    /// Normalised, IEEE single.
    #[default]
    F32,
    /// Normalised, the upper half of an IEEE single, rounded to the nearest.
    Bf16,
    /// Normalised, IEEE half, rounded to the nearest.
    F16,
    /// As decoded, 0 to 255: normalised by whoever takes the batch.
    U8,
}

/// How the gradients of a step are summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// In buckets while backward still runs. Weights agree between numbers of replicas to rounding.
    #[default]
    Fast,
    /// By a fixed tree over the micro-batches: the weights are the same to the bit whatever the number of replicas and
    /// whichever of them failed, on one kind of device and with one number of threads.
    Strict,
}

/// AdamW or SGD with linear warm-up and cosine decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Which.
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The last step's learning rate is this share of the peak.
    pub final_share: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// AdamW: decay of the first moment; SGD: momentum.
    pub beta1: f64,
    /// AdamW: decay of the second moment.
    pub beta2: f64,
    /// AdamW: added to the denominator.
    pub epsilon: f64,
    /// Decay of weights of two or more dimensions.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub clip_norm: f64,
}

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Loshchilov and Hutter 2019.
    Adamw,
    /// Nesterov momentum.
    Sgd,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            learning_rate: 1e-3,
            final_share: 0.1,
            warmup_steps: 20,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
        }
    }
}

/// Random augmentation of training samples, drawn by (seed, source, epoch, row): of text `spans`, of images all else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Random resized crop: the smallest share of the area, in 0…1; 1 takes the whole picture.
    pub min_crop_area: f64,
    /// Chance of a horizontal flip.
    pub flip: f64,
    /// Largest rotation either way, in degrees.
    pub max_rotation_degrees: f64,
    /// Brightness is multiplied by a factor of 1 minus to 1 plus this.
    pub brightness: f64,
    /// The distance of each channel from the sample's mean grey is multiplied by such a factor.
    pub contrast: f64,
    /// The distance of each channel from the pixel's grey is multiplied by such a factor.
    pub saturation: f64,
    /// Hue is turned by at most this share of the circle either way, in 0 to 0.5.
    pub hue: f64,
    /// Hides spans of tokens from the model; none hides nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<Spans>,
}

impl Default for Augment {
    fn default() -> Self {
        let (min_crop_area, flip, max_rotation_degrees) = (0.35, 0.5, 10.0);
        Self { min_crop_area, flip, max_rotation_degrees, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0, spans: None }
    }
}

/// When checkpoints are written and how many are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpointing {
    /// Every so many steps, and after the last.
    pub every_steps: u64,
    /// How many of the latest are kept; 0 keeps all.
    pub keep: u32,
}

impl Default for Checkpointing {
    fn default() -> Self {
        Self { every_steps: 50, keep: 3 }
    }
}

/// Membership of replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Elastic {
    /// A replica that was silent for so long is out.
    pub lease: Millis,
    /// The first generation waits so long for more replicas than `min_replicas`.
    pub gather: Millis,
    /// Training starts, and goes on, with at least so many.
    pub min_replicas: u32,
    /// CPU threads of a replica; 0 shares the host's cores among its replicas, which `reduce = "strict"` does not allow.
    pub threads: u32,
}

impl Default for Elastic {
    fn default() -> Self {
        Self { lease: Millis(2_000), gather: Millis(3_000), min_replicas: 1, threads: 0 }
    }
}

impl Run {
    /// Checks every range; the first setting out of range is the error.
    pub fn validate(&self) -> Result<(), Invalid> {
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        check(
            "name",
            &self.name,
            !self.name.is_empty() && self.name.chars().all(named) && !self.name.starts_with('.'),
            "letters, digits, - _ and .",
        )?;
        check("dataset", &self.dataset, !self.dataset.trim().is_empty(), "a URL or a path")?;
        check("checkpoints", &self.checkpoints, !self.checkpoints.trim().is_empty(), "a URL or a path")?;
        self.weight.validate("weight")?;
        check("mixture", self.mixture.len(), self.mixture.len() <= 1024, "at most 1024 datasets")?;
        for (i, mixed) in self.mixture.iter().enumerate() {
            check(&format!("mixture.{i}.dataset"), &mixed.dataset, !mixed.dataset.trim().is_empty(), "a URL or a path")?;
            mixed.weight.validate(&format!("mixture.{i}.weight"))?;
        }
        self.shuffle.validate()?;
        self.loader.validate()?;
        self.model.validate()?;
        let (steps, epochs) = (self.batch.steps, self.batch.epochs);
        check("batch.steps", steps, steps > 0 || epochs > 0, "at least 1, or `batch.epochs`")?;
        check("batch.epochs", epochs, steps == 0 || epochs == 0, "0 beside `batch.steps`: give one of them")?;
        check("batch.micro_batches", self.batch.micro_batches, (1..=65_536).contains(&self.batch.micro_batches), "1 to 65536")?;
        check("batch.micro_batch_size", self.batch.micro_batch_size, (1..=65_536).contains(&self.batch.micro_batch_size), "1 to 65536")?;
        self.optimizer.validate()?;
        let augment = &self.augment;
        check(
            "augment.min_crop_area",
            augment.min_crop_area,
            augment.min_crop_area > 0.0 && augment.min_crop_area <= 1.0,
            "above 0, at most 1",
        )?;
        check("augment.flip", augment.flip, (0.0..=1.0).contains(&augment.flip), "0 to 1")?;
        check(
            "augment.max_rotation_degrees",
            augment.max_rotation_degrees,
            (0.0..=180.0).contains(&augment.max_rotation_degrees),
            "0 to 180",
        )?;
        for (key, strength) in [("brightness", augment.brightness), ("contrast", augment.contrast), ("saturation", augment.saturation)] {
            check(&format!("augment.{key}"), strength, (0.0..=16.0).contains(&strength), "0 to 16")?;
        }
        check("augment.hue", augment.hue, (0.0..=0.5).contains(&augment.hue), "0 to 0.5")?;
        augment.spans.as_ref().map_or(Ok(()), |spans| spans.validate("augment.spans"))?;
        self.tokenizer.as_ref().map_or(Ok(()), |tokenizer| tokenizer.validate("tokenizer"))?;
        check("checkpoint.every_steps", self.checkpoint.every_steps, self.checkpoint.every_steps > 0, "at least 1")?;
        check("elastic.lease", self.elastic.lease, (200..=600_000).contains(&self.elastic.lease.0), "200ms to 10m")?;
        check("elastic.gather", self.elastic.gather, self.elastic.gather.0 <= 600_000, "at most 10m")?;
        check("elastic.threads", self.elastic.threads, self.elastic.threads <= 1024, "0 to 1024")?;
        check(
            "elastic.threads",
            self.elastic.threads,
            self.reduce == Reduce::Fast || self.elastic.threads > 0,
            "at least 1 with `reduce = \"strict\"`, because the bits depend on it",
        )?;
        check("elastic.min_replicas", self.elastic.min_replicas, (1..=4096).contains(&self.elastic.min_replicas), "1 to 4096")
    }

    /// Digest of the settings that decide the weights: replicas with another digest are not let in.
    pub fn digest(&self) -> Digest {
        let mut deciding = self.clone();
        deciding.checkpoints = String::new();
        deciding.dataset = String::new();
        deciding.version = String::new();
        for mixed in &mut deciding.mixture {
            (mixed.dataset, mixed.version) = (String::new(), String::new());
        }
        if let Some(tokenizer) = &mut deciding.tokenizer {
            tokenizer.file = String::new();
        }
        deciding.loader = Loading::default();
        deciding.checkpoint = Checkpointing::default();
        let threads = if self.reduce == Reduce::Strict { self.elastic.threads } else { 0 };
        deciding.elastic = Elastic { threads, ..Elastic::default() };
        Digest::of(serde_json::to_string(&deciding).unwrap_or_default().as_bytes())
    }

    /// Digest of what decides the tokens of a sample beside its row; none where they are those of the row.
    pub fn text_digest(&self) -> Option<Digest> {
        text::digest(self.tokenizer.as_ref(), self.augment.spans.as_ref())
    }

    /// Samples in a step, K × B.
    pub fn global_batch(&self) -> u64 {
        u64::from(self.batch.micro_batches) * u64::from(self.batch.micro_batch_size)
    }
}

impl Model {
    fn validate(&self) -> Result<(), Invalid> {
        match *self {
            Self::Gpt { layers, heads, width } => {
                check("model.layers", layers, (1..=512).contains(&layers), "1 to 512")?;
                check("model.heads", heads, (1..=512).contains(&heads), "1 to 512")?;
                check(
                    "model.width",
                    width,
                    width > 0 && width <= 65_536 && width % (2 * heads) == 0,
                    "a multiple of 2 × model.heads, at most 65536",
                )
            }
            Self::Resnet { depth, image_size } => {
                check("model.depth", depth, depth == 18 || depth == 20, "18 or 20")?;
                check("model.image_size", image_size, (8..=4096).contains(&image_size), "8 to 4096")
            }
            Self::Vit { layers, heads, width, patch, image_size } => {
                check("model.layers", layers, (1..=512).contains(&layers), "1 to 512")?;
                check("model.heads", heads, (1..=512).contains(&heads), "1 to 512")?;
                check(
                    "model.width",
                    width,
                    width > 0 && width <= 65_536 && width % heads == 0,
                    "a multiple of model.heads, at most 65536",
                )?;
                check("model.image_size", image_size, (8..=4096).contains(&image_size), "8 to 4096")?;
                check("model.patch", patch, patch > 0 && image_size % patch == 0, "a divisor of model.image_size")
            }
            Self::Mlp { width, image_size } => {
                check("model.width", width, (1..=65_536).contains(&width), "1 to 65536")?;
                check("model.image_size", image_size, (8..=4096).contains(&image_size), "8 to 4096")
            }
        }
    }
}

impl Optimizer {
    fn validate(&self) -> Result<(), Invalid> {
        let unit = |value: f64| (0.0..1.0).contains(&value);
        check("optimizer.learning_rate", self.learning_rate, self.learning_rate > 0.0 && self.learning_rate.is_finite(), "above 0")?;
        check("optimizer.final_share", self.final_share, (0.0..=1.0).contains(&self.final_share), "0 to 1")?;
        check("optimizer.beta1", self.beta1, unit(self.beta1), "0 to below 1")?;
        check("optimizer.beta2", self.beta2, unit(self.beta2), "0 to below 1")?;
        check("optimizer.epsilon", self.epsilon, self.epsilon > 0.0, "above 0")?;
        check("optimizer.weight_decay", self.weight_decay, self.weight_decay >= 0.0 && self.weight_decay.is_finite(), "at least 0")?;
        check("optimizer.clip_norm", self.clip_norm, self.clip_norm >= 0.0 && self.clip_norm.is_finite(), "at least 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::layered;

    const TEXT: &str = "name='r'\ndataset='d'\ncheckpoints='c'\n[model]\nkind='gpt'\nlayers=2\nheads=2\nwidth=64\n[batch]\nsteps=10\nmicro_batches=4\nmicro_batch_size=2\n";

    fn read(overrides: &[&str]) -> Result<Run, String> {
        let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
        let run: Run = layered("r.toml", TEXT, [], &overrides).map_err(|error| error.to_string())?;
        run.validate().map_err(|error| error.to_string())?;
        Ok(run)
    }

    #[test]
    fn what_decides_nothing_is_not_in_the_digest() {
        let run = read(&[]).expect("run");
        assert_eq!(
            run.digest(),
            read(&["elastic.lease=5s", "checkpoint.keep=9", "checkpoints=e", "loader.reads=3"]).expect("run").digest()
        );
        assert_ne!(run.digest(), read(&["seed=1"]).expect("run").digest());
        assert_ne!(run.digest(), read(&["batch.steps=11"]).expect("run").digest());
    }

    #[test]
    fn a_strict_run_says_with_how_many_threads() {
        let error = read(&["reduce=strict"]).expect_err("threads");
        assert!(error.contains("`elastic.threads`: found 0, expected at least 1"), "{error}");
        let strict = read(&["reduce=strict", "elastic.threads=1"]).expect("run");
        assert_ne!(strict.digest(), read(&["reduce=strict", "elastic.threads=2"]).expect("run").digest());
        assert_eq!(read(&[]).expect("run").digest(), read(&["elastic.threads=2"]).expect("run").digest());
    }

    #[test]
    fn a_version_may_be_written_as_a_number() {
        assert_eq!(read(&["version=7"]).expect("run").version, "7");
        assert_eq!(read(&["version=clean-1"]).expect("run").version, "clean-1");
        assert!(read(&["version=true"]).expect_err("version").contains("a version number or a tag"));
    }

    #[test]
    fn a_weight_is_a_number_or_a_list_of_points() {
        let run =
            read(&["weight=2", "mixture=[{dataset='e', filter='label < 3', weight=[[0, 1], [500, 0.25]]}, {dataset='f'}]"]).expect("run");
        assert_eq!(run.weight, Weight(vec![(0, 2.0)]));
        assert_eq!(run.mixture[0].weight, Weight(vec![(0, 1.0), (500, 0.25)]));
        assert_eq!((&run.mixture[1].weight, run.mixture[1].version.as_str()), (&Weight::default(), "latest"));
        let printed: Run = toml::from_str(&toml::to_string(&run).expect("toml")).expect("run");
        assert_eq!(printed, run);
        for (weight, expected) in [
            ("-1", "setting `weight`: found -1"),
            ("[[5, 1], [5, 2]]", "found [(5, 1.0), (5, 2.0)]"),
            ("[]", "an empty list"),
            ("x", "a weight"),
        ] {
            let error = read(&[&format!("weight={weight}")]).expect_err("weight");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_run_has_steps_or_epochs() {
        let epochs = read(&["batch.steps=0", "batch.epochs=3"]).expect("run");
        assert_eq!((epochs.batch.steps, epochs.batch.epochs), (0, 3));
        for (overrides, expected) in [
            (&["batch.steps=0"][..], "setting `batch.steps`: found 0, expected at least 1, or `batch.epochs`"),
            (&["batch.epochs=1"], "setting `batch.epochs`: found 1, expected 0 beside `batch.steps`: give one of them"),
        ] {
            assert_eq!(read(overrides).expect_err("refused"), expected);
        }
    }

    #[test]
    fn where_a_tokenizer_lies_decides_nothing_and_what_it_is_does() {
        let of = |overrides: &[&str]| {
            let run = read(&[&["tokenizer.file=a.json"], overrides].concat()).expect("run");
            (run.digest(), run.text_digest())
        };
        let one = format!("tokenizer.sha256='{}'", "1".repeat(64));
        assert_eq!(of(&[&one]), of(&["tokenizer.file=b.json", &one]));
        for other in ["tokenizer.sequence_length=512", "augment.spans.density=0.3", "augment.spans.scored=hidden"] {
            let (first, second) = (of(&[&one]), of(&[&one, other]));
            assert!(first.0 != second.0 && first.1 != second.1, "{other}");
        }
        assert_eq!(read(&["augment.flip=0.1"]).expect("run").text_digest(), None);
        for (setting, expected) in [
            ("tokenizer.sha256='AB'", "64 lower-case hexadecimal digits"),
            ("augment.spans.density=1.0", "above 0, below 1"),
            ("augment.spans.mean_length=0.5", "1 to 1000000"),
        ] {
            let error = read(&["tokenizer.file=a.json", setting]).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn odd_widths_and_names_are_refused() {
        assert_eq!(
            read(&["model.width=66"]).expect_err("width"),
            "setting `model.width`: found 66, expected a multiple of 2 × model.heads, at most 65536"
        );
        assert!(read(&["name=../x"]).expect_err("name").contains("`name`"));
        assert!(read(&["model.kind=lstm"]).expect_err("kind").contains("lstm"));
        assert!(read(&["batch.steps=-1"]).is_err());
        assert!(read(&["elastic.lease=5"]).is_err());
    }
}
