//! Blocklists of addresses: `[clean.blocklist]`.
//!
//! Deliberately absent: lists; UT1 of the University of Toulouse is what FineWeb and RefinedWeb took.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};

/// Which addresses are left out. Every list is the path or URL of a text, one entry a line, plain or gzip; `#` opens a
/// comment. The rules are those of RefinedWeb (Penedo et al. 2023) as datatrove has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Blocklist {
    /// Lists of domains, which block their sub-domains too: `blocked_domain`.
    pub domains: Vec<String>,
    /// Lists of addresses, compared without scheme, `www.`, fragment and last slash: `blocked_url`.
    pub urls: Vec<String>,
    /// Lists of words; one that is a word of the address is enough: `blocked_word`.
    pub words: Vec<String>,
    /// Lists of words of which an address may have a few: `blocked_words`.
    pub soft_words: Vec<String>,
    /// Different soft words from which an address is left out; 2 as in RefinedWeb.
    pub soft_word_threshold: u32,
    /// Lists of strings; one anywhere in the letters and digits of the address is enough: `blocked_substring`.
    pub substrings: Vec<String>,
}

impl Default for Blocklist {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            urls: Vec::new(),
            words: Vec::new(),
            soft_words: Vec::new(),
            soft_word_threshold: 2,
            substrings: Vec::new(),
        }
    }
}

impl Blocklist {
    /// Whether any list is given.
    pub fn is_on(&self) -> bool {
        self.lists().iter().any(|(_, lists)| !lists.is_empty())
    }

    /// Checks every range; `key` is the table, such as `clean.blocklist`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        for (name, lists) in self.lists() {
            let blank = lists.iter().any(|list| list.trim().is_empty());
            check(&format!("{key}.{name}"), lists.join(", "), !blank, "paths or URLs of lists, none of them empty")?;
        }
        check(&format!("{key}.soft_word_threshold"), self.soft_word_threshold, self.soft_word_threshold > 0, "at least 1")
    }

    fn lists(&self) -> [(&'static str, &Vec<String>); 5] {
        [
            ("domains", &self.domains),
            ("urls", &self.urls),
            ("words", &self.words),
            ("soft_words", &self.soft_words),
            ("substrings", &self.substrings),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let error = Blocklist { soft_word_threshold: 0, ..Blocklist::default() }.validate("clean.blocklist").expect_err("threshold");
        assert_eq!(error.key, "clean.blocklist.soft_word_threshold");
        let error = Blocklist { urls: vec![" ".to_owned()], ..Blocklist::default() }.validate("clean.blocklist").expect_err("blank");
        assert_eq!(error.key, "clean.blocklist.urls");
        assert!(!Blocklist::default().is_on());
    }
}
