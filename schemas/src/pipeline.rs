//! Configuration of an ingest pipeline: one TOML file, raw source to dataset version.
//!
//! Every setting has a default but the dataset and the source. `validate` names the key, the value found and what was
//! expected. Deliberately absent: anything about the machine that does not change the rows, other than `[limits]`.

use serde::{Deserialize, Serialize};

pub mod bad_words;
pub mod blocklist;
pub mod decontaminate;
pub mod formats;
pub mod html;
pub mod language;
pub mod personal;
pub mod picture;
pub mod quality;
pub mod repeats;

pub use bad_words::BadWords;
pub use blocklist::Blocklist;
pub use decontaminate::Decontaminate;
pub use formats::Formats;
pub use html::Html;
pub use language::Language;
pub use personal::{Personal, PersonalKind};
pub use picture::Picture;
pub use quality::Quality;
pub use repeats::Repeats;

use crate::dataset::{Modality, TableFormat};
use crate::id::Digest;
use crate::settings::{Invalid, check};
use crate::units::ByteSize;

/// An ingest pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// URL or path of the dataset to commit to.
    pub dataset: String,
    /// How tables are stored.
    #[serde(default)]
    pub format: TableFormat,
    /// What is read.
    pub source: Source,
    /// Text only: what a record must be to be kept.
    #[serde(default)]
    pub clean: Clean,
    /// Images only: what a picture must be to be kept, and how it is stored.
    #[serde(default)]
    pub picture: Picture,
    /// Duplicates.
    #[serde(default)]
    pub dedup: Dedup,
    /// Training and validation.
    #[serde(default)]
    pub split: Split,
    /// Order of rows.
    #[serde(default)]
    pub shard: Shard,
    /// Text only: the tokenizer.
    #[serde(default)]
    pub tokenizer: Tokenizer,
    /// Text only: what a row holds.
    #[serde(default)]
    pub output: Output,
    /// Text only: sequences.
    #[serde(default)]
    pub pack: Pack,
    /// Bounds on the machine; they do not change the rows.
    #[serde(default)]
    pub limits: Limits,
}

/// What a row of a text dataset holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// A packed sequence of tokens.
    #[default]
    Tokens,
    /// A document as cleaned; there is no tokenizer and no packing.
    Documents,
}

/// Where raw records come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `text` or `images`.
    pub modality: Modality,
    /// URL or path of a folder, or of one file; `~` and `${NAME:-default}` are expanded in local paths.
    pub url: String,
    /// Objects whose key matches one of these globs are read; empty means the usual extensions of the modality.
    #[serde(default)]
    pub include: Vec<String>,
    /// Objects whose key matches one of these globs are not.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// A larger record is quarantined as `too_large`.
    #[serde(default = "default_max_record")]
    pub max_record: ByteSize,
    /// How the formats of objects are read.
    #[serde(default)]
    pub formats: Formats,
}

fn default_max_record() -> ByteSize {
    ByteSize(16 << 20)
}

/// Rules of cleaning text, in the order in which they are applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clean {
    /// Addresses that are left out, of records that have one.
    pub blocklist: Blocklist,
    /// Guess the character set of text that is not UTF-8 and says nothing about itself; else it is `bad_encoding`.
    pub detect_charset: bool,
    /// The main content of pages.
    pub html: Html,
    /// Undo a wrong decoding that an earlier program made (`Ã©` for `é`), where it is certain.
    pub repair_mojibake: bool,
    /// Fewer characters is `too_short`.
    pub min_chars: u64,
    /// More characters is `too_long`.
    pub max_chars: u64,
    /// A longest line above this is `long_line` (generated or minified). StarCoder's filter of code takes 1,000; prose may
    /// have its paragraphs on lines of their own, so the default leaves out none that is not too long anyway.
    pub max_line_chars: u64,
    /// A smaller share of letters and digits is `few_alphanumerics`; 0.25 as in StarCoder's filter.
    pub min_alphanumeric: f64,
    /// Language identification.
    pub language: Language,
    /// Rules of quality for English text.
    pub quality: Quality,
    /// Lists of bad words.
    pub bad_words: BadWords,
    /// Evaluation sets that must not be trained on.
    pub decontaminate: Decontaminate,
    /// Personal data that is replaced.
    pub personal: Personal,
}

impl Default for Clean {
    fn default() -> Self {
        Self {
            blocklist: Blocklist::default(),
            detect_charset: true,
            html: Html::default(),
            repair_mojibake: true,
            min_chars: 32,
            max_chars: 1_000_000,
            max_line_chars: 1_000_000,
            min_alphanumeric: 0.25,
            language: Language::default(),
            quality: Quality::default(),
            bad_words: BadWords::default(),
            decontaminate: Decontaminate::default(),
            personal: Personal::default(),
        }
    }
}

impl Clean {
    fn validate(&self) -> Result<(), Invalid> {
        self.blocklist.validate("clean.blocklist")?;
        self.html.validate("clean.html")?;
        check("clean.max_chars", self.max_chars, self.max_chars >= self.min_chars, "at least clean.min_chars")?;
        check("clean.min_alphanumeric", self.min_alphanumeric, (0.0..=1.0).contains(&self.min_alphanumeric), "0 to 1")?;
        self.language.validate("clean.language")?;
        self.quality.validate("clean.quality")?;
        self.bad_words.validate("clean.bad_words")?;
        self.decontaminate.validate("clean.decontaminate")?;
        self.personal.validate("clean.personal")
    }
}

/// Deduplication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dedup {
    /// Remove records whose cleaned content was already read, as `exact_duplicate`.
    pub exact: bool,
    /// Text: remove near duplicates, as `near_duplicate`.
    pub near: bool,
    /// Words in a shingle.
    pub shingle_words: u32,
    /// LSH bands.
    pub bands: u32,
    /// MinHash rows in a band.
    pub rows_per_band: u32,
    /// Exact Jaccard similarity of the sets of shingles from which two records are the same.
    pub threshold: f64,
    /// Text that stands in several of the documents that are left.
    pub repeats: Repeats,
}

impl Default for Dedup {
    fn default() -> Self {
        let repeats = Repeats::default();
        Self { exact: true, near: true, shingle_words: 5, bands: 14, rows_per_band: 8, threshold: 0.75, repeats }
    }
}

/// The split by content hash, stable as the data grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// Share of records whose hash falls into validation, in 0…0.5.
    pub validation: f64,
    /// Keys that match one of these globs are validation and all others training, whatever the share.
    pub validation_keys: Vec<String>,
}

impl Default for Split {
    fn default() -> Self {
        Self { validation: 0.02, validation_keys: Vec::new() }
    }
}

/// The order of rows and the size of files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shard {
    /// In which order records are laid out.
    pub order: Order,
    /// Of the shuffle.
    pub seed: u64,
}

impl Default for Shard {
    fn default() -> Self {
        Self { order: Order::Shuffled, seed: 0 }
    }
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By a hash of content and seed: a shuffle of all records that does not depend on how they were read.
    #[default]
    Shuffled,
    /// As they lie in the source, objects by key.
    Source,
}

/// The tokenizer: given as a file, or trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokenizer {
    /// A Hugging Face `tokenizer.json`; none trains a byte-level BPE on a sample.
    pub file: Option<String>,
    /// Token ids of a trained tokenizer, the end-of-document token included.
    pub vocabulary: u32,
    /// A trained tokenizer has `<|mask|>`, which stands for tokens that a run hides (`augment.spans`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mask: bool,
    /// Bytes of kept text that a tokenizer is trained on.
    pub sample: ByteSize,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self { file: None, vocabulary: 4096, mask: false, sample: ByteSize(8 << 20) }
    }
}

/// Packing of documents into sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pack {
    /// Tokens in a sample.
    pub sequence_length: u32,
    /// How documents are put into rows.
    pub method: PackMethod,
}

impl Default for Pack {
    fn default() -> Self {
        Self { sequence_length: 256, method: PackMethod::Stream }
    }
}

/// How documents are put into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackMethod {
    /// One after the other, cut where a row is full: no filling, most documents are cut.
    #[default]
    Stream,
    /// Best fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling"): only documents longer than a
    /// row are cut, the rest of a row is filling.
    BestFit,
}

/// Bounds on the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU threads; 0 is one a core.
    pub threads: u32,
    /// Memory that buffers may take together.
    pub memory: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { threads: 0, memory: ByteSize(1 << 30) }
    }
}

impl Pipeline {
    /// Checks every range; the first setting out of range is the error.
    pub fn validate(&self) -> Result<(), Invalid> {
        check("dataset", &self.dataset, !self.dataset.trim().is_empty(), "a URL or a path")?;
        check("source.url", &self.source.url, !self.source.url.trim().is_empty(), "a URL or a path")?;
        check("source.max_record", self.source.max_record, self.source.max_record.0 > 0, "at least 1B")?;
        self.source.formats.validate("source.formats")?;
        self.clean.validate()?;
        self.picture.validate("picture")?;
        check("dedup.shingle_words", self.dedup.shingle_words, (1..=32).contains(&self.dedup.shingle_words), "1 to 32")?;
        check("dedup.bands", self.dedup.bands, (1..=256).contains(&self.dedup.bands), "1 to 256")?;
        check("dedup.rows_per_band", self.dedup.rows_per_band, (1..=64).contains(&self.dedup.rows_per_band), "1 to 64")?;
        check("dedup.threshold", self.dedup.threshold, self.dedup.threshold > 0.0 && self.dedup.threshold <= 1.0, "above 0, at most 1")?;
        self.dedup.repeats.validate("dedup.repeats")?;
        check("split.validation", self.split.validation, (0.0..=0.5).contains(&self.split.validation), "0 to 0.5")?;
        check("tokenizer.vocabulary", self.tokenizer.vocabulary, (257..=1 << 20).contains(&self.tokenizer.vocabulary), "257 to 1048576")?;
        let mask = self.tokenizer.mask;
        check("tokenizer.mask", mask, !mask || self.tokenizer.file.is_none(), "false beside `tokenizer.file`, which has its own tokens")?;
        check("tokenizer.sample", self.tokenizer.sample, self.tokenizer.sample.0 >= 1 << 10, "at least 1KiB")?;
        check("pack.sequence_length", self.pack.sequence_length, (8..=1 << 20).contains(&self.pack.sequence_length), "8 to 1048576")?;
        check("limits.memory", self.limits.memory, self.limits.memory.0 >= 128 << 20, "at least 128MiB")?;
        check("limits.threads", self.limits.threads, self.limits.threads <= 1024, "0 to 1024")
    }

    /// Digest of the settings that decide the rows: all but where they go, how they are stored and `[limits]`.
    pub fn digest(&self) -> Digest {
        let mut deciding = self.clone();
        deciding.dataset = String::new();
        deciding.format = TableFormat::default();
        deciding.limits = Limits::default();
        Digest::of(serde_json::to_string(&deciding).unwrap_or_default().as_bytes())
    }
}
