//! A tokenizer, and what is asked of it here.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The token after every document, in a tokenizer that ingest trained.
pub const END_OF_DOCUMENT: &str = "<|endoftext|>";
/// The token in place of a hidden one, in a tokenizer that ingest trained with one.
pub const MASK: &str = "<|mask|>";

/// What other tokenizers call them, in the order in which they are looked for.
const ENDS: [&str; 7] = [END_OF_DOCUMENT, "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[SEP]", "<|eot_id|>"];
const MASKS: [&str; 4] = [MASK, "[MASK]", "<mask>", "<|MASK|>"];

/// Why there is no tokenizer, or no ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no `tokenizer.json`.
    #[error("expected a Hugging Face tokenizer.json: {0}")]
    Format(String),
    /// No token ends a document.
    #[error("found no end-of-document token, expected one of {}", ENDS.join(" "))]
    End,
    /// The library failed on a text.
    #[error("encoding failed: {0}")]
    Encode(String),
    /// The library failed to train one.
    #[error("training failed: {0}")]
    Train(String),
}

/// What may fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// A loaded `tokenizer.json`. Cheap to clone; those of the same bytes are equal.
#[derive(Clone)]
pub struct Tokenizer {
    library: Arc<tokenizers::Tokenizer>,
    vocabulary: u32,
    end_of_document: u32,
    mask: Option<u32>,
    sha256: String,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`; the token that ends documents is found by its name.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        Self::load(json, None)
    }

    /// The same where it is known which token ends documents.
    pub fn with_end(json: &[u8], end_of_document: u32) -> Result<Self> {
        Self::load(json, Some(end_of_document))
    }

    fn load(json: &[u8], end: Option<u32>) -> Result<Self> {
        let mut library = tokenizers::Tokenizer::from_bytes(json).map_err(|error| Error::Format(error.to_string()))?;
        library.set_encode_special_tokens(true);
        let ids = library.get_vocab(true);
        let named = |names: &[&str]| names.iter().find_map(|name| ids.get(*name)).copied();
        let (end_of_document, mask) = (end.or_else(|| named(&ENDS)).ok_or(Error::End)?, named(&MASKS));
        let vocabulary = ids.values().max().map_or(0, |last| last + 1);
        let sha256 = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { library: Arc::new(library), vocabulary, end_of_document, mask, sha256 })
    }

    /// What the library makes of it.
    pub fn library(&self) -> &tokenizers::Tokenizer {
        &self.library
    }

    /// Number of ids, up to the largest in use.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// Id of the token that ends a document.
    pub fn end_of_document(&self) -> u32 {
        self.end_of_document
    }

    /// Id of the token that stands for a hidden one, if there is one.
    pub fn mask(&self) -> Option<u32> {
        self.mask
    }

    /// Names by which [`Self::mask`] is found.
    pub fn mask_names() -> String {
        MASKS.join(" ")
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("sha256", &self.sha256).field("vocabulary", &self.vocabulary).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_tokenizer_and_one_without_an_end_are_refused() {
        assert!(Tokenizer::from_json(b"{}").expect_err("no tokenizer").to_string().starts_with("expected a Hugging Face"));
        let json = crate::train(&["a b a b".to_owned()], 300, false).expect("trained");
        let endless = String::from_utf8(json).expect("utf-8").replace(END_OF_DOCUMENT, "<|other|>");
        let error = Tokenizer::from_json(endless.as_bytes()).expect_err("no end");
        assert!(error.to_string().contains("found no end-of-document token, expected one of <|endoftext|>"), "{error}");
        assert_eq!(Tokenizer::with_end(endless.as_bytes(), 7).expect("told").end_of_document(), 7);
    }
}
