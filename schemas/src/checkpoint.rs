//! The manifest of a checkpoint: weights, optimizer state, and the way back to the raw data.
//!
//! Published by the same commit rule as a dataset version: its objects are immutable and lie there first.

use serde::{Deserialize, Serialize};

use crate::dataset::ObjectRef;
use crate::id::Digest;
use crate::position::Position;

/// Format version of [`CheckpointManifest`]; a reader refuses a larger one.
pub const FORMAT: u32 = 2;

/// One published checkpoint of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointManifest {
    /// Format version of this manifest, [`FORMAT`].
    pub format: u32,
    /// Name of the run.
    pub run: String,
    /// Where the run stands: `position.step` steps were applied to these weights.
    pub position: Position,
    /// The generation that committed its last step; with `position.step` the [`crate::wire::Mark`] of the state.
    pub generation: u64,
    /// When it was published, milliseconds since 1970 UTC.
    pub created_unix_ms: u64,
    /// Program and version that made it.
    pub program: String,
    /// The dataset version that the weights come from.
    pub dataset: DatasetVersionRef,
    /// Digest of the settings of the run that decide the weights.
    pub config_digest: Digest,
    /// The effective configuration of the run.
    pub config: serde_json::Value,
    /// Names the order in which its samples were fed; none if it was written before orders were named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Digest>,
    /// Samples consumed since step 0.
    pub samples: u64,
    /// Training loss of the last step.
    pub loss: Option<f64>,
    /// SHA-256 over the weights' names, shapes and bytes in name order, hexadecimal.
    pub weights_sha256: String,
    /// Model weights and buffers, safetensors.
    pub model: ObjectRef,
    /// Optimizer state, safetensors.
    pub optimizer: ObjectRef,
}

/// A dataset version by name and by content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetVersionRef {
    /// The dataset.
    pub url: String,
    /// Its version.
    pub version: u64,
    /// The version's identity, which must match when it is opened again.
    pub identity: Digest,
    /// The versions that are mixed in, in the order of the run's settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed: Vec<DatasetVersionRef>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [&str; 2] = [include_str!("../golden/checkpoint-1.json"), include_str!("../golden/checkpoint-2.json")];

    #[test]
    fn every_format_is_read_and_written_byte_for_byte() {
        for (format, golden) in (1..).zip(GOLDEN) {
            let manifest: CheckpointManifest = serde_json::from_str(golden).expect("golden manifest");
            assert_eq!((manifest.format, manifest.order.is_some()), (format, format > 1));
            assert_eq!(serde_json::to_string_pretty(&manifest).expect("json") + "\n", golden);
        }
    }
}
