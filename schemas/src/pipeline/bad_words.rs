//! Lists of bad words: `[clean.bad_words]`.
//!
//! Deliberately absent: a list; which words are bad depends on what is trained. C4 took the LDNOOBW lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};

/// The rule of C4 (Raffel et al. 2020): a document with a listed word is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BadWords {
    /// Paths or URLs of lists, one word or phrase a line, plain or gzip, by language: `en = ["words.txt"]`. Lists of `*` hold
    /// for every document, whatever its language.
    pub lists: BTreeMap<String, Vec<String>>,
    /// Share of the documents with a listed word that are kept all the same, in 0…1; which ones, their content decides.
    pub keep_fraction: f64,
}

impl BadWords {
    /// Whether any list is given.
    pub fn is_on(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Whether some list is for one language, so that the language of documents must be known.
    pub fn needs_language(&self) -> bool {
        self.lists.keys().any(|language| language != "*")
    }

    /// Checks every range; `key` is the table, such as `clean.bad_words`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        for (language, lists) in &self.lists {
            let given = !lists.is_empty() && lists.iter().all(|list| !list.trim().is_empty());
            check(&format!("{key}.lists.{language}"), lists.join(", "), given, "paths or URLs of lists")?;
        }
        check(&format!("{key}.keep_fraction"), self.keep_fraction, (0.0..=1.0).contains(&self.keep_fraction), "0 to 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_without_a_list_is_named() {
        let settings = BadWords { lists: BTreeMap::from([("en".to_owned(), Vec::new())]), keep_fraction: 0.0 };
        let error = settings.validate("clean.bad_words").expect_err("no list").to_string();
        assert_eq!(error, "setting `clean.bad_words.lists.en`: found nothing, expected paths or URLs of lists");
        assert!(BadWords { keep_fraction: 2.0, ..BadWords::default() }.validate("k").is_err());
    }
}
