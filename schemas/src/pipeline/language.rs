//! The language of a text: `[clean.language]`.
//!
//! Deliberately absent: languages a model does not know, and a language for every paragraph; a document has one.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};

/// Language identification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Language {
    /// Store the language of every record and how sure it is; that alone removes nothing.
    pub detect: bool,
    /// Languages that are kept, as the model names them (`en`, `zh`); another is `other_language`. `*` is any. Empty removes
    /// nothing.
    pub allowed: Vec<String>,
    /// Where `allowed` is given, a smaller probability of the language is `unsure_language`; 0.65 as in FineWeb (Penedo et al.
    /// 2024).
    pub min_score: f64,
    /// A fastText model of languages, `.ftz` or `.bin`; empty is the `lid.176.ftz` that `make setup` fetched. The environment
    /// variable `FOREBAY_LANGUAGE_MODEL` goes before it.
    pub model: String,
}

impl Default for Language {
    fn default() -> Self {
        Self { detect: false, allowed: Vec::new(), min_score: 0.65, model: String::new() }
    }
}

impl Language {
    /// Whether languages are identified at all.
    pub fn is_on(&self) -> bool {
        self.detect || !self.allowed.is_empty()
    }

    /// Checks every range; `key` is the table, such as `clean.language`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        let blank = self.allowed.iter().any(|label| label.trim().is_empty());
        check(&format!("{key}.allowed"), self.allowed.join(", "), !blank, "names of languages, none of them empty")?;
        check(&format!("{key}.min_score"), self.min_score, (0.0..=1.0).contains(&self.min_score), "0 to 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_out_of_range_is_named() {
        let settings = Language { min_score: 65.0, ..Language::default() };
        let error = settings.validate("clean.language").expect_err("range").to_string();
        assert_eq!(error, "setting `clean.language.min_score`: found 65, expected 0 to 1");
        assert!(Language { allowed: vec![String::new()], ..Language::default() }.validate("k").is_err());
        assert_eq!(Language::default().validate("k"), Ok(()));
    }
}
