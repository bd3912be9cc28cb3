//! The position of a reader: progress is one number.
//!
//! With the dataset's identity and the seed, the step says which samples were consumed and which come next; nothing
//! else is kept, so a position serialises to at most 256 bytes whatever the size of the dataset.

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// Where a run stands in the order of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// [`crate::dataset::DatasetManifest::identity`] of the version that is read.
    pub dataset: Digest,
    /// Seed of the order.
    pub seed: u64,
    /// Committed steps; the next step to compute has this number.
    pub step: u64,
    /// Micro-batches in a step, K.
    pub micro_batches: u32,
    /// Samples in a micro-batch, B.
    pub micro_batch_size: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_at_most_256_bytes() {
        let position =
            Position { dataset: Digest::of(b""), seed: u64::MAX, step: u64::MAX, micro_batches: u32::MAX, micro_batch_size: u32::MAX };
        let text = serde_json::to_string(&position).expect("json");
        assert!(text.len() <= 256, "{} bytes: {text}", text.len());
        assert_eq!(serde_json::from_str::<Position>(&text).expect("position"), position);
    }
}
