//! What a run reads beside its dataset, in which proportions, how it is shuffled, and how much of it is fetched ahead.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{default_version, text_or_number};
use crate::settings::{Invalid, check};
use crate::units::{ByteSize, Millis};

/// A dataset that is mixed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixed {
    /// URL or path of the dataset.
    pub dataset: String,
    /// `latest`, a version number or a tag; resolved once, when the run starts.
    #[serde(default = "default_version", deserialize_with = "text_or_number")]
    pub version: String,
    /// SQL over the columns of its training rows: only rows for which it is true are fed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Its weight among all datasets of the run.
    #[serde(default)]
    pub weight: Weight,
}

/// A weight, or its schedule: `0.7`, or `[[0, 0.7], [1000, 0.1]]`, that is (step, weight), between which it changes linearly.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight(pub Vec<(u64, f64)>);

impl Default for Weight {
    fn default() -> Self {
        Self(vec![(0, 1.0)])
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [(0, weight)] => weight.serialize(serializer),
            points => points.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a weight or a list of [step, weight]")]
        enum Form {
            Constant(f64),
            Points(Vec<(u64, f64)>),
        }
        match Form::deserialize(deserializer)? {
            Form::Constant(weight) => Ok(Self(vec![(0, weight)])),
            Form::Points(points) if points.is_empty() => {
                Err(D::Error::custom("found an empty list, expected a weight or a list of [step, weight]"))
            }
            Form::Points(points) => Ok(Self(points)),
        }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [(0, weight)] => write!(f, "{weight}"),
            points => f.debug_list().entries(points.iter().map(|(step, weight)| (step, weight))).finish(),
        }
    }
}

impl Weight {
    pub(super) fn validate(&self, key: &str) -> Result<(), Invalid> {
        let weights = self.0.iter().all(|(_, weight)| (0.0..=1e12).contains(weight));
        let steps = self.0.windows(2).all(|pair| pair[0].0 < pair[1].0);
        check(key, self, weights && steps && self.0.len() <= 256, "0 to 1e12, or at most 256 of [step, weight] with ascending steps")
    }
}

/// How far rows are moved: blocks of neighbours are shuffled, and all rows of a window of blocks among each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shuffle {
    /// Neighbours that are read together; 0 takes as many as are one to two MiB, at most 1,024.
    pub block_rows: u64,
    /// Rows of a window; a window has at least 16 blocks.
    pub window_rows: u64,
}

impl Default for Shuffle {
    fn default() -> Self {
        Self { block_rows: 0, window_rows: 16_384 }
    }
}

impl Shuffle {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        check(
            "shuffle.block_rows",
            self.block_rows,
            self.block_rows == 0 || (self.block_rows.is_power_of_two() && self.block_rows <= 1 << 20),
            "0, or a power of two to 1048576",
        )?;
        check("shuffle.window_rows", self.window_rows, (1..=1 << 30).contains(&self.window_rows), "1 to 1073741824")
    }
}

/// How a replica fetches. None of it changes what is fed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loading {
    /// Bytes of rows and batches that wait for the consumer, of batches that it holds, and of words that tokenizers remember; two
    /// batches and rows of the next should fit.
    pub prefetch: ByteSize,
    /// Threads that make batches; 0 takes one for text, and for images as many as compute.
    pub threads: u32,
    /// Reads under way at a time.
    pub reads: u32,
    /// A read that takes so much longer than most is asked for again, and the first answer counts; 0 asks once.
    pub hedge: f64,
    /// A read that fails is tried again for so long; one that has no answer by then, or within 10 s, is given up.
    pub patience: Millis,
    /// Compares rows with the checks that were written with them; those of a dataset without checks are taken as they are.
    pub verify: bool,
    /// So many samples that do not decode may be replaced, by each replica and in each generation; one more is an error.
    pub corrupt_samples: u64,
    /// URL or path of a folder in which each of them is written down; none only counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// Keeps what was fetched on a local disk.
    pub cache: Cache,
}

/// Blocks of rows on a local disk, shared by all replicas of a host that name the same folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// A folder on a local disk; none keeps nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What it may hold.
    pub size: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { folder: None, size: ByteSize(16 << 30) }
    }
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            prefetch: ByteSize(256 << 20),
            threads: 0,
            reads: 32,
            hedge: 4.0,
            patience: Millis(60_000),
            verify: true,
            corrupt_samples: 0,
            quarantine: None,
            cache: Cache::default(),
        }
    }
}

impl Loading {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        check("loader.prefetch", self.prefetch, (1 << 20..=1 << 44).contains(&self.prefetch.0), "1MiB to 16384GiB")?;
        check("loader.threads", self.threads, self.threads <= 1024, "0 to 1024")?;
        check("loader.reads", self.reads, (1..=4096).contains(&self.reads), "1 to 4096")?;
        check("loader.hedge", self.hedge, self.hedge == 0.0 || (1.0..=1e6).contains(&self.hedge), "0, or 1 to 1e6")?;
        check("loader.patience", self.patience, self.patience.0 <= 86_400_000, "at most 1440m")?;
        let folder = self.cache.folder.as_deref();
        check("loader.cache.folder", folder.unwrap_or_default(), folder.is_none_or(|folder| !folder.trim().is_empty()), "a path")
    }
}
