//! The manifest of a dataset version: what it holds, where it came from, and the proof that nothing was lost.
//!
//! A version exists from the moment its manifest was put, and never changes. Deliberately absent: credentials and
//! absolute local paths other than those the user's own source URL names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, RowsDigest};

/// Format version of [`DatasetManifest`]; a reader refuses a larger one. 2 added `layout`, `cleaned`, `quality`, tables of
/// several parts, and more statistics; a manifest of format 1 reads as one without them.
pub const FORMAT: u32 = 2;

/// One committed version of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetManifest {
    /// Format version of this manifest, [`FORMAT`].
    pub format: u32,
    /// 1, 2, 3, …
    pub version: u64,
    /// The version this one was made after; none for version 1.
    pub parent: Option<u64>,
    /// When it was committed, milliseconds since 1970 UTC.
    pub created_unix_ms: u64,
    /// Program and version that made it, for example `forebay 0.1.0`.
    pub program: String,
    /// What kind of samples the rows are.
    pub modality: Modality,
    /// Digest of `config`, of those settings that decide the rows.
    pub config_digest: Digest,
    /// The effective configuration of the pipeline.
    pub config: serde_json::Value,
    /// The raw objects that were read.
    pub inputs: Inputs,
    /// The conservation table.
    pub tally: Tally,
    /// Digest of the multiset of kept records.
    pub rows_digest: RowsDigest,
    /// Tables by name: `train`, `validation` and `records`.
    pub tables: BTreeMap<String, TableRef>,
    /// The tokenizer that made the tokens; none of documents and images.
    pub tokenizer: Option<TokenizerRef>,
    /// What was measured over the training rows.
    pub statistics: Statistics,
    /// For a version that adds to its parent: digest of the parent's identity and of what was added and taken out. Rows
    /// of such a version lie in another order than those of one made at a stroke, so its samples come in another order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Digest>,
    /// The stage objects of cleaning that later versions build upon, one JSON object a line ([`CleanedTask`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned: Option<ObjectRef>,
    /// Measured quality of the near-duplicate search; none where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

impl DatasetManifest {
    /// Identity of the content: the same for the same rows in the same order, whoever ingested them, when and where.
    /// The order of samples is a function of this, the seed and the step.
    pub fn identity(&self) -> Digest {
        let mut parts: Vec<Vec<u8>> = vec![self.config_digest.as_bytes().to_vec(), self.rows_digest.to_bytes().to_vec()];
        for (name, table) in &self.tables {
            parts.push(name.as_bytes().to_vec());
            parts.push(table.rows.to_le_bytes().to_vec());
        }
        if let Some(tokenizer) = &self.tokenizer {
            parts.push(tokenizer.object.digest.as_bytes().to_vec());
        }
        if let Some(layout) = &self.layout {
            parts.push(layout.as_bytes().to_vec());
        }
        Digest::of_parts(parts.iter().map(Vec::as_slice))
    }
}

/// The kind of samples in a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Packed token sequences, [`crate::record::sequences`], or documents, [`crate::record::documents`].
    Text,
    /// Encoded images with a label, [`crate::record::images`].
    Images,
}

/// The raw objects of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The source as configured.
    pub url: String,
    /// Number of objects.
    pub objects: u64,
    /// Their total size.
    pub bytes: u64,
    /// Digest of the sorted list of (key, size, etag).
    pub digest: Digest,
    /// The list itself, one JSON object a line with `key`, `size`, `etag`.
    pub list: ObjectRef,
}

/// The conservation table: `read = kept + removed + quarantined`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Records read.
    pub read: u64,
    /// Records in `train` or `validation`.
    pub kept: u64,
    /// Good records left out, by rule.
    pub removed: BTreeMap<String, u64>,
    /// Bad records, by reason.
    pub quarantined: BTreeMap<String, u64>,
}

impl Tally {
    /// Records left out by any rule.
    pub fn removed_total(&self) -> u64 {
        self.removed.values().sum()
    }

    /// Bad records of any reason.
    pub fn quarantined_total(&self) -> u64 {
        self.quarantined.values().sum()
    }

    /// Whether nothing was lost and nothing doubled.
    pub fn is_conserved(&self) -> bool {
        self.read == self.kept + self.removed_total() + self.quarantined_total()
    }
}

/// How the rows of a table are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// A Lance table, pinned to one of its versions.
    #[default]
    Lance,
    /// A list of Parquet files.
    Parquet,
}

/// One immutable table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRef {
    /// How it is stored.
    pub format: TableFormat,
    /// Where, below the dataset's root: the Lance table, or the folder of the Parquet files.
    pub path: String,
    /// The Lance version that is meant; none for Parquet.
    pub lance_version: Option<u64>,
    /// The Parquet files in row order; empty for Lance.
    pub files: Vec<FileRef>,
    /// Number of rows; of a table of parts, those that are not deleted.
    pub rows: u64,
    /// The tables that this one is made of, one after the other; empty for a plain table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TableRef>,
    /// Rows of the parts that do not count, ascending little-endian `u64`s counted over all parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<ObjectRef>,
}

impl TableRef {
    /// The plain tables that this one is made of.
    pub fn plain(&self) -> &[TableRef] {
        if self.parts.is_empty() { std::slice::from_ref(self) } else { &self.parts }
    }
}

/// The output of one task of cleaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanedTask {
    /// Folder of the job below the dataset's root.
    pub folder: String,
    /// Number of the task in its job.
    pub task: u32,
    /// Records that it read.
    pub records: u64,
}

/// Measured quality of the near-duplicate search, on a sample of pairs whose exact Jaccard similarity was computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Records in the sample.
    pub sample: u64,
    /// Pairs in it at or above the threshold.
    pub pairs: u64,
    /// Share of these pairs that the search finds.
    pub recall: f64,
    /// 95 % confidence interval of the recall (Wilson 1927).
    pub recall_interval: [f64; 2],
    /// Removals in the sample that were measured again.
    pub removals: u64,
    /// Share of them whose similarity to their survivor is at or above the threshold.
    pub precision: f64,
    /// 95 % confidence interval of the precision.
    pub precision_interval: [f64; 2],
}

/// One Parquet file of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// Where and what.
    pub object: ObjectRef,
    /// Number of rows.
    pub rows: u64,
}

/// An immutable object and the digest that its bytes must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// Path below the root of what names it (a dataset or a run's checkpoints).
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// blake3 of the bytes.
    pub digest: Digest,
}

/// A tokenizer and how it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRef {
    /// A Hugging Face `tokenizer.json`.
    pub object: ObjectRef,
    /// Number of token ids.
    pub vocabulary: u32,
    /// Id of the token that ends every document.
    pub end_of_document: u32,
}

/// What ingest measured over the training rows; absent fields do not apply to the modality.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Tokens in the training rows.
    pub tokens: Option<u64>,
    /// Tokens in a row less one: the length of a sample.
    pub sequence_length: Option<u32>,
    /// Entropy of the training tokens' frequencies, in nats a token: the loss of a model that knows only these.
    pub unigram_entropy_nats: Option<f64>,
    /// Class names, sorted; a label is an index into them.
    pub classes: Option<Vec<String>>,
    /// Training rows of each class.
    pub class_counts: Option<Vec<u64>>,
    /// Mean of the red, green and blue channel over all training pixels, in 0…1.
    pub channel_mean: Option<[f64; 3]>,
    /// Standard deviation of the same.
    pub channel_std: Option<[f64; 3]>,
    /// What these are computed from, and what a later version adds to: training pixels, the sums of their channels, 0…255, and
    /// the sums of the squares of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_sums: Option<[u64; 7]>,
    /// Times each token occurs in the training rows, little-endian `u64`s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_counts: Option<ObjectRef>,
    /// Filling in the training and validation rows, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_tokens: Option<u64>,
    /// Documents that had to be cut because they are longer than a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_documents: Option<u64>,
    /// Kept records by size: the number with 2ⁿ to 2ⁿ⁺¹ - 1 characters, or bytes for images, at place n.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<u64>,
    /// Kept records by language, where it was identified.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, u64>,
    /// What cleaning changed in kept records, by kind: `email` replaced, `line_policy` dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub edits: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../golden/dataset-2.json");

    #[test]
    fn every_format_is_still_read_and_written_byte_for_byte() {
        for (format, golden) in [(1, include_str!("../golden/dataset-1.json")), (2, GOLDEN)] {
            let manifest: DatasetManifest = serde_json::from_str(golden).expect("golden manifest");
            assert_eq!(manifest.format, format);
            assert!(manifest.tally.is_conserved());
            assert_eq!(serde_json::to_string_pretty(&manifest).expect("json") + "\n", golden);
        }
    }

    #[test]
    fn identity_depends_on_rows_and_not_on_time() {
        let manifest: DatasetManifest = serde_json::from_str(GOLDEN).expect("golden manifest");
        let mut later = manifest.clone();
        later.created_unix_ms += 1;
        later.version += 1;
        assert_eq!(later.identity(), manifest.identity());
        later.rows_digest.add(&Digest::of(b"one more"));
        assert_ne!(later.identity(), manifest.identity());
    }
}
