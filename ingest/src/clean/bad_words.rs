//! Rule: no listed word (C4's bad-words filter, Raffel et al. 2020; options as datatrove's `C4BadWordsFilter`).
//!
//! Promises: a word counts where no letter, digit or underscore touches it, whatever its case; one written in a script
//! without spaces counts anywhere. Which documents `keep_fraction` spares their content decides, not chance, so a run
//! repeats. Deliberately absent: inflections and spellings that hide a word.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::BadWords;
use twox_hash::XxHash3_64;

use super::lists::{ReadObject, entries};
use super::scripts::is_unspaced;
use super::{Rejection, Verdict};
use crate::error::{Error, Kind, Result};

/// The name under which lists hold for every document.
const EVERY_LANGUAGE: &str = "*";
/// Keeps this draw apart from every other hash of the same text.
const DRAW_SEED: u64 = 0x6261_6477;

/// Loaded lists; threads share them.
#[derive(Debug)]
pub(crate) struct WordLists {
    lists: BTreeMap<String, WordList>,
    keep_fraction: f64,
    digest: Digest,
}

#[derive(Debug)]
struct WordList {
    words: Vec<Word>,
    searcher: AhoCorasick,
}

#[derive(Debug)]
struct Word {
    text: String,
    /// Not in a script without spaces.
    is_bounded: bool,
}

impl WordLists {
    /// Reads every list.
    pub(crate) fn load(settings: &BadWords, read: ReadObject<'_>) -> Result<Self> {
        let (mut lists, mut parts) = (BTreeMap::new(), Vec::new());
        for (language, places) in &settings.lists {
            let mut words = BTreeSet::new();
            for place in places {
                entries(place, read, |word| {
                    words.insert(word.to_lowercase());
                })?;
            }
            if words.is_empty() {
                let found = places.join(", ");
                return Err(Error::new(Kind::Invalid, format!("bad words of `{language}`: found no word in {found}, expected one a line")));
            }
            parts.push(language.clone());
            parts.push(words.iter().map(|word| format!("{word}\n")).collect());
            lists.insert(language.clone(), WordList::new(words)?);
        }
        let digest = Digest::of_parts(parts.iter().map(String::as_bytes));
        Ok(Self { lists, keep_fraction: settings.keep_fraction, digest })
    }

    /// Digest of the words, which decide rows.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// `bad_word`, by the lists of the language and those of every language.
    pub(crate) fn check(&self, text: &str, language: Option<&str>) -> Verdict {
        let names = [Some(EVERY_LANGUAGE), language.filter(|language| *language != EVERY_LANGUAGE)];
        let mut lists = names.into_iter().flatten().filter_map(|name| self.lists.get_key_value(name)).peekable();
        if lists.peek().is_none() {
            return Verdict::Keep;
        }
        // ASCII is searched as it is, the searcher folds its case.
        let lower = if text.is_ascii() { None } else { Some(text.to_lowercase()) };
        let lower = lower.as_deref().unwrap_or(text);
        let Some((name, word)) = lists.find_map(|(name, list)| Some((name, list.find(lower)?))) else {
            return Verdict::Keep;
        };
        if self.is_spared(text) {
            return Verdict::Keep;
        }
        Verdict::Remove(Rejection::new("bad_word", format!("`{word}` of list {name}")))
    }

    fn is_spared(&self, text: &str) -> bool {
        let draw = (XxHash3_64::oneshot_with_seed(DRAW_SEED, text.as_bytes()) >> 11) as f64 / (1u64 << 53) as f64;
        draw < self.keep_fraction
    }
}

impl WordList {
    fn new(words: BTreeSet<String>) -> Result<Self> {
        let words: Vec<Word> = words.into_iter().map(|text| Word { is_bounded: !text.chars().any(is_unspaced), text }).collect();
        let searcher = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            // The faster automaton for lists of the usual hundreds; a huge list stays small.
            .kind((words.len() <= 5_000).then_some(AhoCorasickKind::DFA))
            .build(words.iter().map(|word| &word.text))
            .map_err(|error| Error::with_source(Kind::Invalid, "bad words: the lists are too large", error))?;
        Ok(Self { words, searcher })
    }

    fn find(&self, lower: &str) -> Option<&str> {
        // Overlapping, since a word that is part of a longer one must not hide others.
        let mut matches = self.searcher.find_overlapping_iter(lower);
        let found =
            matches.find(|found| !self.words[found.pattern().as_usize()].is_bounded || is_alone(lower, found.start(), found.end()))?;
        Some(&self.words[found.pattern().as_usize()].text)
    }
}

/// Whether no letter, digit or underscore touches the place.
fn is_alone(text: &str, start: usize, end: usize) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    !text[..start].chars().next_back().is_some_and(joins) && !text[end..].chars().next().is_some_and(joins)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lists(lists: &[(&str, &str)], keep_fraction: f64) -> Result<WordLists> {
        let named = lists.iter().map(|(language, _)| ((*language).to_owned(), vec![(*language).to_owned()])).collect();
        let content = |place: &str| {
            let found = lists.iter().find(|(language, _)| *language == place);
            found.map(|(_, words)| words.as_bytes().to_vec()).ok_or_else(|| "gone".to_owned())
        };
        WordLists::load(&BadWords { lists: named, keep_fraction }, &content)
    }

    fn detail(lists: &WordLists, text: &str, language: Option<&str>) -> Option<String> {
        lists.check(text, language).rejection().map(|rejection| rejection.detail.clone())
    }

    #[test]
    fn a_word_counts_only_as_a_whole() {
        let lists = lists(&[("en", "Darn\ndarn it\nübel\n")], 0.0).expect("lists");
        for (text, word) in [
            ("darn!", Some("darn")),
            ("Oh DARN", Some("darn")),
            ("darned darning un-darn", Some("darn")),
            ("darned darning sdarn _darn darn2", None),
            ("ÜBEL, das", Some("übel")),
            ("Übelkeit", None),
            ("édarn", None),
            ("", None),
        ] {
            let expected = word.map(|word| format!("`{word}` of list en"));
            assert_eq!(detail(&lists, text, Some("en")), expected, "{text}");
        }
    }

    #[test]
    fn a_word_without_spaces_around_counts_in_scripts_that_have_none() {
        let lists = lists(&[("zh", "坏词\n"), ("*", "x-y\n")], 0.0).expect("lists");
        assert_eq!(detail(&lists, "这是坏词吗", Some("zh")).as_deref(), Some("`坏词` of list zh"));
        assert_eq!(detail(&lists, "这是坏词吗", Some("ja")), None);
        assert_eq!(detail(&lists, "an X-Y here", None).as_deref(), Some("`x-y` of list *"));
        assert_eq!(detail(&lists, "max-y", None), None);
    }

    #[test]
    fn an_empty_or_missing_list_is_an_error() {
        assert!(lists(&[("en", "\n# none\n")], 0.0).expect_err("empty").to_string().contains("found no word in en"));
        let settings = BadWords { lists: BTreeMap::from([("en".to_owned(), vec!["gone".to_owned()])]), keep_fraction: 0.0 };
        assert!(WordLists::load(&settings, &|_| Err("no such file".to_owned())).is_err());
    }

    #[test]
    fn the_digest_is_of_the_words_not_of_how_they_are_listed() {
        let digest = |text: &str| lists(&[("en", text)], 0.0).expect("lists").digest();
        assert_eq!(digest("b\nA\n"), digest("# list\na\r\nb"));
        assert_ne!(digest("a\nb\n"), digest("a b\n"));
    }

    #[test]
    fn the_share_that_is_kept_is_kept_again() {
        let lists = lists(&[("*", "darn\n")], 0.3).expect("lists");
        let kept = |n: u32| lists.check(&format!("darn number {n}"), None) == Verdict::Keep;
        let count = (0..2_000).filter(|n| kept(*n)).count();
        assert!((500..700).contains(&count), "{count}");
        assert!((0..50).all(|n| kept(n) == kept(n)));
    }

    proptest! {
        #[test]
        fn the_automaton_agrees_with_looking_at_every_word(text in "[abAB_ é.漢]{0,24}", words in prop::collection::btree_set("[ab]{1,3}|é|漢a?", 1..5)) {
            let list = words.iter().map(|word| format!("{word}\n")).collect::<String>();
            let lists = lists(&[("*", &list)], 0.0).expect("lists");
            let lower = text.to_lowercase();
            let anywhere = |word: &String| lower.char_indices().any(|(at, _)| {
                lower[at..].starts_with(word.as_str()) && (word.contains('漢') || is_alone(&lower, at, at + word.len()))
            });
            prop_assert_eq!(lists.check(&text, None) != Verdict::Keep, words.iter().any(anywhere));
        }
    }
}
