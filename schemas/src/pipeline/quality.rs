//! Rules of quality for English text: `[clean.quality]`.
//!
//! Each table turns its rule on; `[clean.quality.gopher_quality]` alone takes the published numbers. FineWeb's recipe is all
//! four, with `c4.terminal_punctuation = false`. A maximum of `inf` or a minimum of 0 turns a single limit off. Deliberately
//! absent: C4 by sentences instead of lines, and thresholds for other languages.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};

/// Which rules judge a document, in this order; each sees the text that the one before left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quality {
    /// Repeated lines, paragraphs and word n-grams.
    pub gopher_repetition: Option<GopherRepetition>,
    /// Words, symbols, bullets, stop words.
    pub gopher_quality: Option<GopherQuality>,
    /// Lines that are no prose, and pages with too few sentences; the only rule that edits.
    pub c4: Option<C4>,
    /// Short lines, lines without an end, repeated lines.
    pub fineweb: Option<FineWeb>,
}

/// Repetition as in Gopher (Rae et al. 2021, table A1). A share is of the characters of the document unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GopherRepetition {
    /// Largest share of paragraphs that were there before; 0.3 (table A1).
    pub max_duplicate_paragraphs: f64,
    /// Largest share of characters in such paragraphs; 0.2 (table A1).
    pub max_duplicate_paragraph_chars: f64,
    /// Largest share of lines that were there before; 0.3 (table A1).
    pub max_duplicate_lines: f64,
    /// Largest share of characters in such lines; 0.2 (table A1).
    pub max_duplicate_line_chars: f64,
    /// Words, and largest share of characters in the most frequent n-gram of so many words; 2, 3 and 4 words (table A1).
    pub top_ngrams: Vec<(u32, f64)>,
    /// Words, and largest share of characters in n-grams of so many words that were there before; 5 to 10 words (table A1).
    pub duplicate_ngrams: Vec<(u32, f64)>,
}

impl Default for GopherRepetition {
    fn default() -> Self {
        Self {
            max_duplicate_paragraphs: 0.3,
            max_duplicate_paragraph_chars: 0.2,
            max_duplicate_lines: 0.3,
            max_duplicate_line_chars: 0.2,
            top_ngrams: vec![(2, 0.2), (3, 0.18), (4, 0.16)],
            duplicate_ngrams: vec![(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)],
        }
    }
}

/// Quality as in Gopher (Rae et al. 2021). Words of punctuation alone do not count in the first four.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GopherQuality {
    /// Fewest words; 50 (Rae et al. 2021).
    pub min_words: u64,
    /// Most words; 100,000 (Rae et al. 2021).
    pub max_words: u64,
    /// Smallest mean length of a word, in characters; 3 (Rae et al. 2021).
    pub min_mean_word_chars: f64,
    /// Largest mean length of a word, in characters; 10 (Rae et al. 2021).
    pub max_mean_word_chars: f64,
    /// Most number signs for each word, and most ellipses for each word; 0.1 (Rae et al. 2021).
    pub max_symbols_per_word: f64,
    /// Largest share of lines that begin with a bullet or a hyphen; 0.9 (Rae et al. 2021).
    pub max_bullet_lines: f64,
    /// Largest share of lines that end with an ellipsis; 0.3 (Rae et al. 2021).
    pub max_ellipsis_lines: f64,
    /// Smallest share of words with a letter; 0.8 (Rae et al. 2021).
    pub min_alphabetic_words: f64,
    /// Fewest different stop words; 2 (Rae et al. 2021).
    pub min_stop_words: u64,
    /// The stop words, in lower case; the eight of Rae et al. 2021.
    pub stop_words: Vec<String>,
}

impl Default for GopherQuality {
    fn default() -> Self {
        Self {
            min_words: 50,
            max_words: 100_000,
            min_mean_word_chars: 3.0,
            max_mean_word_chars: 10.0,
            max_symbols_per_word: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(str::to_owned).to_vec(),
        }
    }
}

/// The heuristics of C4 (Raffel et al. 2020). Lines lose the blanks at both ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct C4 {
    /// Drop lines that do not end with `.`, `?`, `!` or a quote, or that end with an ellipsis; on (Raffel et al. 2020), off in
    /// FineWeb (Penedo et al. 2024).
    pub terminal_punctuation: bool,
    /// Drop lines of fewer words between blanks; 3 (Raffel et al. 2020, as datatrove 0.10 has it).
    pub min_line_words: u64,
    /// Drop lines with a longer word, in characters; 1,000 (the program of Raffel et al. 2020).
    pub max_word_chars: u64,
    /// Cut Wikipedia's `[1]`, `[edit]` and `[citation needed]` out; on (the program of Raffel et al. 2020).
    pub remove_citations: bool,
    /// Drop lines that speak of JavaScript; on (Raffel et al. 2020).
    pub drop_javascript: bool,
    /// Drop lines that speak of cookies, terms of use or a privacy policy; on (Raffel et al. 2020).
    pub drop_policy: bool,
    /// Leave out documents with "lorem ipsum" in a line not yet dropped; on (Raffel et al. 2020).
    pub refuse_lorem_ipsum: bool,
    /// Leave out documents with `{` in a line not yet dropped; on (Raffel et al. 2020).
    pub refuse_curly_bracket: bool,
    /// Fewest sentences in the lines that are left; 5 (Raffel et al. 2020, as datatrove 0.10 has it).
    pub min_sentences: u64,
}

impl Default for C4 {
    fn default() -> Self {
        Self {
            terminal_punctuation: true,
            min_line_words: 3,
            max_word_chars: 1000,
            remove_citations: true,
            drop_javascript: true,
            drop_policy: true,
            refuse_lorem_ipsum: true,
            refuse_curly_bracket: true,
            min_sentences: 5,
        }
    }
}

/// The rules that FineWeb adds (Penedo et al. 2024). Lines of blanks alone do not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineWeb {
    /// Smallest share of lines that end with a terminal; 0.12 (Penedo et al. 2024).
    pub min_terminal_lines: f64,
    /// Keep documents without any such line all the same; off (datatrove 0.10).
    pub accept_no_terminal_lines: bool,
    /// Largest share of short lines; 0.67 (Penedo et al. 2024).
    pub max_short_lines: f64,
    /// A line of at most so many characters is short; 30 (Penedo et al. 2024).
    pub short_line_chars: u64,
    /// Largest share of characters in lines that were there before; 0.01 (datatrove 0.10; the paper says 0.1).
    pub max_duplicate_line_chars: f64,
    /// Most line ends for each word, so that lists go; 0.3 (datatrove 0.10).
    pub max_newlines_per_word: f64,
}

impl Default for FineWeb {
    fn default() -> Self {
        Self {
            min_terminal_lines: 0.12,
            accept_no_terminal_lines: false,
            max_short_lines: 0.67,
            short_line_chars: 30,
            max_duplicate_line_chars: 0.01,
            max_newlines_per_word: 0.3,
        }
    }
}

/// Most words in an n-gram.
const MAX_NGRAM: u32 = 32;

impl Quality {
    /// Whether any rule is on.
    pub fn is_on(&self) -> bool {
        self.gopher_repetition.is_some() || self.gopher_quality.is_some() || self.c4.is_some() || self.fineweb.is_some()
    }

    /// Checks every range; `key` is the table, such as `clean.quality`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        self.gopher_repetition.as_ref().map_or(Ok(()), |rule| rule.validate(&format!("{key}.gopher_repetition")))?;
        self.gopher_quality.as_ref().map_or(Ok(()), |rule| rule.validate(&format!("{key}.gopher_quality")))?;
        self.c4.as_ref().map_or(Ok(()), |rule| rule.validate(&format!("{key}.c4")))?;
        self.fineweb.as_ref().map_or(Ok(()), |rule| rule.validate(&format!("{key}.fineweb")))
    }
}

impl GopherRepetition {
    fn validate(&self, key: &str) -> Result<(), Invalid> {
        for (name, limit) in [
            ("max_duplicate_paragraphs", self.max_duplicate_paragraphs),
            ("max_duplicate_paragraph_chars", self.max_duplicate_paragraph_chars),
            ("max_duplicate_lines", self.max_duplicate_lines),
            ("max_duplicate_line_chars", self.max_duplicate_line_chars),
        ] {
            not_negative(key, name, limit)?;
        }
        for (name, limits) in [("top_ngrams", &self.top_ngrams), ("duplicate_ngrams", &self.duplicate_ngrams)] {
            for (words, limit) in limits {
                check(&format!("{key}.{name}"), words, (1..=MAX_NGRAM).contains(words), "n-grams of 1 to 32 words")?;
                not_negative(key, name, *limit)?;
            }
        }
        Ok(())
    }
}

impl GopherQuality {
    fn validate(&self, key: &str) -> Result<(), Invalid> {
        check(&format!("{key}.max_words"), self.max_words, self.max_words >= self.min_words, "at least min_words")?;
        let ordered = self.max_mean_word_chars >= self.min_mean_word_chars;
        check(&format!("{key}.max_mean_word_chars"), self.max_mean_word_chars, ordered, "at least min_mean_word_chars")?;
        for (name, limit) in [
            ("min_mean_word_chars", self.min_mean_word_chars),
            ("max_symbols_per_word", self.max_symbols_per_word),
            ("max_bullet_lines", self.max_bullet_lines),
            ("max_ellipsis_lines", self.max_ellipsis_lines),
        ] {
            not_negative(key, name, limit)?;
        }
        let share = (0.0..=1.0).contains(&self.min_alphabetic_words);
        check(&format!("{key}.min_alphabetic_words"), self.min_alphabetic_words, share, "0 to 1")?;
        let enough = self.min_stop_words <= self.stop_words.len() as u64;
        check(&format!("{key}.min_stop_words"), self.min_stop_words, enough, "at most the number of stop_words")?;
        check(&format!("{key}.stop_words"), self.stop_words.len(), self.stop_words.len() <= 64, "at most 64 words")
    }
}

impl C4 {
    fn validate(&self, key: &str) -> Result<(), Invalid> {
        check(&format!("{key}.max_word_chars"), self.max_word_chars, self.max_word_chars > 0, "at least 1")
    }
}

impl FineWeb {
    fn validate(&self, key: &str) -> Result<(), Invalid> {
        let share = (0.0..=1.0).contains(&self.min_terminal_lines);
        check(&format!("{key}.min_terminal_lines"), self.min_terminal_lines, share, "0 to 1")?;
        not_negative(key, "max_short_lines", self.max_short_lines)?;
        not_negative(key, "max_duplicate_line_chars", self.max_duplicate_line_chars)?;
        not_negative(key, "max_newlines_per_word", self.max_newlines_per_word)
    }
}

fn not_negative(key: &str, name: &str, value: f64) -> Result<(), Invalid> {
    check(&format!("{key}.{name}"), value, value >= 0.0, "at least 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Quality, String> {
        let quality: Quality = toml::from_str(text).map_err(|error| error.to_string())?;
        quality.validate("clean.quality").map_err(|error| error.to_string())?;
        Ok(quality)
    }

    #[test]
    fn an_empty_table_turns_a_rule_on_with_the_published_numbers() {
        let quality = read("[c4]\nterminal_punctuation = false\n[fineweb]\n").expect("settings");
        assert_eq!(quality.c4, Some(C4 { terminal_punctuation: false, ..C4::default() }));
        assert_eq!(quality.fineweb, Some(FineWeb::default()));
        assert_eq!((quality.gopher_quality, quality.gopher_repetition), (None, None));
        assert!(!read("").expect("settings").is_on());
    }

    #[test]
    fn a_maximum_of_inf_is_allowed_and_nan_is_not() {
        assert!(read("[gopher_quality]\nmax_symbols_per_word = inf\n").is_ok());
        assert!(read("[gopher_quality]\nmax_symbols_per_word = nan\n").is_err());
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        for (text, expected) in [
            ("[gopher_repetition]\ntop_ngrams = [[40, 0.1]]\n", "clean.quality.gopher_repetition.top_ngrams"),
            ("[gopher_repetition]\nmax_duplicate_lines = -0.1\n", "clean.quality.gopher_repetition.max_duplicate_lines"),
            ("[gopher_quality]\nmax_words = 10\n", "clean.quality.gopher_quality.max_words"),
            ("[gopher_quality]\nmin_stop_words = 9\n", "clean.quality.gopher_quality.min_stop_words"),
            ("[c4]\nmax_word_chars = 0\n", "clean.quality.c4.max_word_chars"),
            ("[fineweb]\nmin_terminal_lines = 2.0\n", "clean.quality.fineweb.min_terminal_lines"),
            ("[c4]\nmin_sentence = 2\n", "min_sentence"),
        ] {
            assert!(read(text).expect_err(text).contains(expected), "{text}");
        }
    }
}
