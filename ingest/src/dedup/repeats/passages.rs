//! Where one text has what another may have too: whole paragraphs, and passages of so many words.
//!
//! Every run of `passage_words` words is a passage, so of a longer stretch that two texts share each run is one, and
//! together they cover it. To find those that may be shared without looking up each, a passage is known by the least hash
//! of the shorter runs in it (winnowing; Schleimer, Wilkerson and Aiken 2003): equal passages have the same, and
//! neighbours mostly have the same, so a text of n words has some 4 n / `passage_words` such keys. Words are compared, not
//! what stands between them.

use std::collections::VecDeque;
use std::ops::Range;

use forebay_schemas::pipeline::Repeats;

use crate::clean::normalise::normalise;
use crate::dedup::words::{word_hashes, words};
use crate::splitmix::mix;

/// A stretch of a text that may stand elsewhere too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Hash of its words, and another for what shares it by chance.
    pub(super) hash: u64,
    pub(super) check: u32,
    /// Its first word, and how many it has.
    pub(super) first: u32,
    pub(super) words: u32,
}

/// Finds units; reuses its buffers.
pub(super) struct Finder {
    settings: Repeats,
    text_words: Vec<Range<usize>>,
    hashes: Vec<u64>,
    /// The least hash of the shorter runs in each passage, and where it is.
    least: Vec<(u64, u32)>,
}

impl Finder {
    pub(super) fn new(settings: &Repeats) -> Self {
        Self { settings: settings.clone(), text_words: Vec::new(), hashes: Vec::new(), least: Vec::new() }
    }

    /// Keys of a text: two texts that have a unit in common, or one that has it twice, see one of its keys twice.
    pub(super) fn keys(&mut self, text: &str, mut see: impl FnMut(u64)) {
        self.cut(text);
        self.paragraphs(text, |paragraph| see(paragraph.hash));
        let mut last = None;
        for (key, at) in &self.least {
            if last != Some(*at) {
                see(*key);
            }
            last = Some(*at);
        }
    }

    /// The units of a text whose key may be shared.
    pub(super) fn units(&mut self, text: &str, is_shared: impl Fn(u64) -> bool, mut found: impl FnMut(Unit)) {
        self.cut(text);
        self.paragraphs(text, |paragraph| {
            if is_shared(paragraph.hash) {
                found(paragraph);
            }
        });
        let width = self.settings.passage_words as usize;
        let mut last = None;
        for (first, (key, at)) in self.least.iter().enumerate() {
            let is_shared = match last {
                Some((place, is_shared)) if place == *at => is_shared,
                _ => is_shared(*key),
            };
            last = Some((*at, is_shared));
            if is_shared {
                let (hash, check) = hash(PASSAGE, &self.hashes[first..first + width]);
                found(Unit { hash, check, first: first as u32, words: width as u32 });
            }
        }
    }

    /// A text without some of its words, given as ascending ranges that do not touch, and without what follows each range
    /// up to the next word; and how many words it had.
    pub(super) fn without(&mut self, text: &str, ranges: &[Range<u32>]) -> (String, usize) {
        self.text_words.clear();
        self.text_words.extend(words(text));
        let mut left = String::with_capacity(text.len());
        let mut from = 0;
        for range in ranges {
            let (first, end) = (range.start as usize, range.end as usize);
            let next = self.text_words.get(end).map_or(text.len(), |word| word.start);
            left.push_str(&text[from..self.text_words[first].start]);
            // What comes before a cut must not run into the line after it.
            if text[self.text_words[end - 1].end..next].contains('\n') && !left.is_empty() && !left.ends_with('\n') {
                left.push('\n');
            }
            from = next;
        }
        left.push_str(&text[from..]);
        (normalise(&left), self.text_words.len())
    }

    fn cut(&mut self, text: &str) {
        self.hashes.clear();
        self.least.clear();
        if !self.settings.passages {
            return;
        }
        self.hashes.extend(word_hashes(text));
        let width = self.settings.passage_words as usize;
        let shorter = width.div_ceil(2);
        if self.hashes.len() >= width {
            minima(&runs(&self.hashes, shorter), width - shorter + 1, &mut self.least);
        }
    }

    /// The paragraphs that are long enough.
    fn paragraphs(&mut self, text: &str, mut found: impl FnMut(Unit)) {
        if !self.settings.paragraphs {
            return;
        }
        let mut first = 0;
        let mut hashes = Vec::new();
        for line in text.split('\n') {
            hashes.clear();
            hashes.extend(word_hashes(line));
            if hashes.len() >= self.settings.paragraph_words as usize {
                let (hash, check) = hash(PARAGRAPH, &hashes);
                found(Unit { hash, check, first, words: hashes.len() as u32 });
            }
            first += hashes.len() as u32;
        }
    }
}

/// What a paragraph and a passage of the same words differ by.
const PARAGRAPH: u64 = 1;
const PASSAGE: u64 = 2;

const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Two hashes of a run of words.
fn hash(kind: u64, words: &[u64]) -> (u64, u32) {
    let fold = |start: u64| words.iter().fold(start, |hash, word| mix(hash.rotate_left(17) ^ word));
    (fold(kind), (fold(kind ^ BASE) >> 32) as u32)
}

/// Hashes of all runs of `width` words (Karp and Rabin 1987).
fn runs(words: &[u64], width: usize) -> Vec<u64> {
    let power = (0..width).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut rolling = 0u64;
    let mut all = Vec::with_capacity(words.len());
    for (at, word) in words.iter().enumerate() {
        rolling = rolling.wrapping_mul(BASE).wrapping_add(*word);
        if at >= width {
            rolling = rolling.wrapping_sub(words[at - width].wrapping_mul(power));
        }
        if at + 1 >= width {
            all.push(mix(rolling));
        }
    }
    all
}

/// The least of every `width` values in a row and its place, the last of equal ones.
fn minima(values: &[u64], width: usize, least: &mut Vec<(u64, u32)>) {
    // Places of values that may still become the least, their values ascending.
    let mut open: VecDeque<usize> = VecDeque::new();
    for (at, value) in values.iter().enumerate() {
        while open.back().is_some_and(|last| values[*last] >= *value) {
            open.pop_back();
        }
        open.push_back(at);
        if open.front().is_some_and(|first| first + width <= at) {
            open.pop_front();
        }
        if let Some(first) = open.front().filter(|_| at + 1 >= width) {
            least.push((values[*first], *first as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn finder(paragraphs: u32, passages: u32) -> Finder {
        Finder::new(&Repeats {
            paragraphs: paragraphs > 0,
            paragraph_words: paragraphs.max(1),
            passages: passages > 0,
            passage_words: passages.max(8),
        })
    }

    fn all(finder: &mut Finder, text: &str) -> Vec<Unit> {
        let mut units = Vec::new();
        finder.units(text, |_| true, |unit| units.push(unit));
        units
    }

    #[test]
    fn a_paragraph_is_known_by_its_words() {
        let mut finder = finder(3, 0);
        let [a, b] = ["One two three.\nfour five\nsix seven, eight!", "x\n\n  One - two - three\n"].map(|text| all(&mut finder, text));
        assert_eq!((a.len(), b.len()), (2, 1));
        assert_eq!((a[0].hash, a[0].check, a[0].first, a[0].words), (b[0].hash, b[0].check, 0, 3));
        assert_eq!((a[1].first, a[1].words, b[0].first), (5, 3, 1));
    }

    #[test]
    fn what_is_left_keeps_its_lines_apart() {
        let mut finder = finder(1, 0);
        let text = "A title\n\nFirst one, two.\nThe “rest” stays; and here.\nend";
        let cut = |finder: &mut Finder, ranges: &[Range<u32>]| finder.without(text, ranges).0;
        assert_eq!(finder.without(text, &[]), (format!("{text}\n"), 11));
        assert_eq!(cut(&mut finder, std::slice::from_ref(&(2..5))), "A title\n\nThe “rest” stays; and here.\nend\n");
        assert_eq!(cut(&mut finder, std::slice::from_ref(&(3..6))), "A title\n\nFirst rest” stays; and here.\nend\n");
        assert_eq!(cut(&mut finder, &[0..2, 10..11]), "First one, two.\nThe “rest” stays; and here.\n");
        assert_eq!(cut(&mut finder, std::slice::from_ref(&(0..11))), "");
    }

    proptest! {
        #[test]
        fn equal_passages_have_a_key_in_common(
            shared in prop::collection::vec(0u8..5, 8..20),
            before in prop::collection::vec(0u8..5, 0..20),
            after in prop::collection::vec(0u8..5, 0..20),
        ) {
            let text = |words: &[&[u8]]| words.concat().iter().map(|word| format!("w{word} ")).collect::<String>();
            let mut finder = finder(0, 8);
            let texts = [text(&[&shared, &after]), text(&[&before, &shared])];
            let mut seen: HashMap<u64, usize> = HashMap::new();
            texts.iter().for_each(|text| finder.keys(text, |key| *seen.entry(key).or_default() += 1));
            let mut found = Vec::new();
            for text in &texts {
                let mut units = HashSet::new();
                finder.units(text, |key| seen.get(&key).is_some_and(|times| *times > 1), |unit| { units.insert((unit.hash, unit.check)); });
                found.push(units);
            }
            let everything = texts.each_ref().map(|text| all(&mut finder, text).iter().map(|unit| (unit.hash, unit.check)).collect::<HashSet<_>>());
            let both: HashSet<_> = everything[0].intersection(&everything[1]).collect();
            prop_assert!(!both.is_empty());
            prop_assert!(both.iter().all(|unit| found[0].contains(unit) && found[1].contains(unit)));
        }

        #[test]
        fn minima_are_the_least_of_their_windows(values in prop::collection::vec(0u64..9, 1..40), width in 1usize..10) {
            let mut least = Vec::new();
            minima(&values, width, &mut least);
            let expected: Vec<u64> = values.windows(width).map(|window| *window.iter().min().expect("window")).collect();
            prop_assert_eq!(least.iter().map(|(value, _)| *value).collect::<Vec<_>>(), expected);
            prop_assert!(least.iter().enumerate().all(|(first, (value, at))| (first..first + width).contains(&(*at as usize)) && values[*at as usize] == *value));
        }

        #[test]
        fn runs_are_known_by_their_words(words in prop::collection::vec(0u64..4, 4..30), width in 1usize..4) {
            let hashes = runs(&words, width);
            let of: HashMap<&[u64], u64> = words.windows(width).zip(hashes.iter().copied()).collect();
            prop_assert!(words.windows(width).zip(&hashes).all(|(run, hash)| of[run] == *hash));
            prop_assert_eq!(of.values().collect::<HashSet<_>>().len(), of.len());
        }
    }
}
