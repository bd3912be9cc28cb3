//! Decontamination against evaluation sets: `[clean.decontaminate]`.
//!
//! Deliberately absent: paraphrases and translations of evaluation items; only wording that is the same is found.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};

/// Overlap of n-grams with evaluation sets, as for GPT-3 (Brown et al. 2020, appendix C).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decontaminate {
    /// Paths or URLs of evaluation sets, plain or gzip: `.jsonl` and `.json` (an item is an object), else text (an item is a
    /// paragraph).
    pub evaluations: Vec<String>,
    /// JSON: fields that make up an item, joined in this order; dots lead into objects. None takes every string of an item for
    /// itself.
    pub fields: Vec<String>,
    /// Words in an n-gram; 13 as for GPT-3. In scripts without spaces a character counts as a word.
    pub ngram_words: u32,
    /// An item of fewer words than an n-gram, but at least this many, is looked for as a whole; 8 as for GPT-3. Shorter items are
    /// said too often to tell anything.
    pub min_item_words: u32,
    /// Different n-grams of evaluation sets from which a document is `contaminated`; 1 as for GPT-3.
    pub min_ngrams: u32,
}

impl Default for Decontaminate {
    fn default() -> Self {
        Self { evaluations: Vec::new(), fields: Vec::new(), ngram_words: 13, min_item_words: 8, min_ngrams: 1 }
    }
}

impl Decontaminate {
    /// Whether any evaluation set is given.
    pub fn is_on(&self) -> bool {
        !self.evaluations.is_empty()
    }

    /// Checks every range; `key` is the table, such as `clean.decontaminate`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        let blank = |list: &[String]| list.iter().any(|entry| entry.trim().is_empty());
        check(&format!("{key}.evaluations"), self.evaluations.join(", "), !blank(&self.evaluations), "paths or URLs, none of them empty")?;
        check(&format!("{key}.fields"), self.fields.join(", "), !blank(&self.fields), "names of fields, none of them empty")?;
        check(&format!("{key}.ngram_words"), self.ngram_words, (2..=64).contains(&self.ngram_words), "2 to 64")?;
        let within = (1..=self.ngram_words).contains(&self.min_item_words);
        check(&format!("{key}.min_item_words"), self.min_item_words, within, "1 to ngram_words")?;
        check(&format!("{key}.min_ngrams"), self.min_ngrams, self.min_ngrams > 0, "at least 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_never_longer_than_an_ngram() {
        let settings = Decontaminate { ngram_words: 5, ..Decontaminate::default() };
        let error = settings.validate("clean.decontaminate").expect_err("8 words").to_string();
        assert_eq!(error, "setting `clean.decontaminate.min_item_words`: found 8, expected 1 to ngram_words");
        assert_eq!(Decontaminate::default().validate("k"), Ok(()));
        assert!(Decontaminate { min_ngrams: 0, ..Decontaminate::default() }.validate("k").is_err());
    }
}
