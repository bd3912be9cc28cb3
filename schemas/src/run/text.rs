//! What a run makes of text beyond what its rows hold: tokens out of documents, and spans that the model does not see.

use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::settings::{Invalid, check};

/// The tokenizer of a run that reads documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenizing {
    /// URL or path of a Hugging Face `tokenizer.json`, where every replica reads it.
    pub file: String,
    /// SHA-256 of the file, hexadecimal; left out, it is that of the file that was there when the run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Tokens in a sample.
    #[serde(default = "default_length")]
    pub sequence_length: u32,
}

fn default_length() -> u32 {
    256
}

impl Tokenizing {
    pub(super) fn validate(&self, key: &str) -> Result<(), Invalid> {
        check(&format!("{key}.file"), &self.file, !self.file.trim().is_empty(), "a URL or a path")?;
        let sha256 = self.sha256.as_deref().unwrap_or_default();
        let hexadecimal = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        check(&format!("{key}.sha256"), sha256, self.sha256.is_none() || hexadecimal, "64 lower-case hexadecimal digits")?;
        let length = self.sequence_length;
        check(&format!("{key}.sequence_length"), length, (8..=1 << 20).contains(&length), "8 to 1048576")
    }
}

/// Spans of tokens that are hidden: the model is shown the mask token in their place, and the targets stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spans {
    /// Share of the tokens of a sample, of those that are targets, that is hidden.
    pub density: f64,
    /// Mean tokens of a span.
    pub mean_length: f64,
    /// Which tokens count for the loss.
    pub scored: Scored,
    /// Id of the token in place of a hidden one; left out, it is the tokenizer's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_id: Option<u32>,
}

/// Which tokens count for the loss where some are hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scored {
    /// Every target. For a model that sees only what came before, hiding some of that is a regulariser (Liu et al. 2022,
    /// "FCM: Forgetful Causal Masking").
    #[default]
    All,
    /// Hidden tokens alone, as models are trained that fill gaps.
    Hidden,
}

impl Default for Spans {
    fn default() -> Self {
        Self { density: 0.15, mean_length: 3.0, scored: Scored::All, mask_id: None }
    }
}

impl Spans {
    pub(super) fn validate(&self, key: &str) -> Result<(), Invalid> {
        check(&format!("{key}.density"), self.density, self.density > 0.0 && self.density < 1.0, "above 0, below 1")?;
        check(&format!("{key}.mean_length"), self.mean_length, (1.0..=1e6).contains(&self.mean_length), "1 to 1000000")
    }
}

pub(super) fn digest(tokenizer: Option<&Tokenizing>, spans: Option<&Spans>) -> Option<Digest> {
    let json = match (tokenizer, spans) {
        (None, None) => return None,
        (tokenizer, spans) => serde_json::to_string(&(tokenizer.map(|one| (&one.sha256, one.sequence_length)), spans)),
    };
    Some(Digest::of_parts([b"forebay text 1", json.unwrap_or_default().as_bytes()]))
}
