//! Text that stands in several documents: `[dedup.repeats]`.
//!
//! Deliberately absent: passages that are alike but not the same; whole documents that are alike are near duplicates.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};

/// Cutting what stands elsewhere, or earlier in the same document, out of the documents that are left; one place keeps it.
/// With any of these on, a version is made anew instead of from what was added, as an old document may lose text to a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repeats {
    /// Cut whole paragraphs (Dolma's paragraph deduplication, Soldaini et al. 2024).
    pub paragraphs: bool,
    /// Words of the shortest paragraph that is looked at; a paragraph is a line. 13 as for Dolma.
    pub paragraph_words: u32,
    /// Cut passages wherever they begin and end (exact substring deduplication, Lee et al. 2022).
    pub passages: bool,
    /// Words of the shortest passage; 50 as the tokens of Lee et al. Words are compared, not what stands between them. In scripts
    /// without spaces a character counts as a word.
    pub passage_words: u32,
}

impl Default for Repeats {
    fn default() -> Self {
        Self { paragraphs: false, paragraph_words: 13, passages: false, passage_words: 50 }
    }
}

impl Repeats {
    /// Whether anything is cut.
    pub fn is_on(&self) -> bool {
        self.paragraphs || self.passages
    }

    /// Checks every range; `key` is the table, such as `dedup.repeats`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        check(&format!("{key}.paragraph_words"), self.paragraph_words, (1..=10_000).contains(&self.paragraph_words), "1 to 10000")?;
        check(&format!("{key}.passage_words"), self.passage_words, (8..=10_000).contains(&self.passage_words), "8 to 10000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passage_of_a_few_words_is_no_passage() {
        let error = Repeats { passage_words: 7, ..Repeats::default() }.validate("dedup.repeats").expect_err("7 words").to_string();
        assert_eq!(error, "setting `dedup.repeats.passage_words`: found 7, expected 8 to 10000");
        assert_eq!(Repeats::default().validate("k"), Ok(()));
        assert!(!Repeats::default().is_on());
    }
}
