//! Words of a text and their facts, found once and shared by every rule.
//!
//! The words are those of spaCy's English tokenizer, which datatrove takes by default, so that published thresholds mean the
//! same here. In scripts without spaces that makes a word of what stands between punctuation, as it does there; rules that
//! count words need other thresholds for them. Deliberately absent: a segmenter for each language.

use twox_hash::XxHash3_64;

use self::classes::{ALPHA, BEFORE_STOP, CLASSES, Classes, DIGIT, LETTER, LOWER, PUNCTUATION, SPACE, STOP, SYMBOL, UPPER};
use self::rules::{Cuts, RULES, Rules};

pub(crate) mod classes;
mod exceptions;
mod rules;
mod url;

/// A word: where it is and what the rules ask about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Of its bytes.
    pub(crate) hash: u64,
    /// Byte of the text where it starts.
    pub(crate) start: u32,
    /// Byte after it.
    pub(crate) end: u32,
    /// Unicode scalar values.
    pub(crate) chars: u32,
    facts: u8,
}

const HAS_LETTER: u8 = 1;
const ALL_SYMBOLS: u8 = 1 << 1;
const ALL_PUNCTUATION: u8 = 1 << 2;
const ENDS_SENTENCE: u8 = 1 << 3;
const AFTER_BLANK: u8 = 1 << 4;
const AFTER_WIDE_BLANK: u8 = 1 << 5;

impl Word {
    /// Whether it has a letter.
    pub(crate) fn has_letter(&self) -> bool {
        self.facts & HAS_LETTER != 0
    }

    /// Whether it is punctuation alone.
    pub(crate) fn is_symbol(&self) -> bool {
        self.facts & ALL_SYMBOLS != 0
    }

    /// Whether blanks or nothing stand before it.
    pub(crate) fn is_after_blank(&self) -> bool {
        self.facts & AFTER_BLANK != 0
    }
}

/// Segments texts; reuses its buffers, so keep one a thread.
#[derive(Default)]
pub(crate) struct Segmenter {
    words: Vec<Word>,
    cuts: Cuts,
}

/// Words above this are not kept allocated from one text to the next.
const KEPT_WORDS: usize = 1 << 18;

/// Classes of letters; a chunk of these alone has no affixes.
const LETTERS: u16 = LETTER | LOWER | UPPER | ALPHA | BEFORE_STOP;

impl Segmenter {
    /// The words of a text in order. Of more than 4 GiB, which no source delivers, it sees the first 4 GiB.
    pub(crate) fn segment(&mut self, text: &str) -> &[Word] {
        let text = &text[..text.floor_char_boundary(u32::MAX as usize)];
        self.words.clear();
        if self.words.capacity() > KEPT_WORDS {
            self.words.shrink_to(KEPT_WORDS);
        }
        // Taken once here: asking whether they are there costs more than a look into them.
        let (classes, rules) = (&*CLASSES, &*RULES);
        let mut at = 0;
        while at < text.len() {
            let blanks = at;
            at = skip_blanks(text, at, classes);
            let blank = if matches!(&text.as_bytes()[blanks..at], [] | [b' ']) { AFTER_BLANK } else { AFTER_BLANK | AFTER_WIDE_BLANK };
            let chunk = Scan::of(text, at, classes);
            if chunk.end > at {
                self.push_chunk(text, at, &chunk, blank, (classes, rules));
            }
            at = chunk.end;
        }
        &self.words
    }

    fn push_chunk(&mut self, text: &str, start: usize, chunk: &Scan, blank: u8, (classes, rules): (&Classes, &Rules)) {
        let plain = chunk.any & !LETTERS == 0 || chunk.any & !(DIGIT | BEFORE_STOP) == 0;
        if plain && rules.exception(text, start, chunk.end).is_none() {
            self.words.push(word(start, chunk, blank, XxHash3_64::oneshot(&text.as_bytes()[start..chunk.end])));
            return;
        }
        rules.cut(&text[start..chunk.end], &mut self.cuts);
        for (place, ((from, to), hash)) in self.cuts.pieces.iter().zip(&self.cuts.hashes).enumerate() {
            let scan = Scan::of(&text[..start + to], start + from, classes);
            self.words.push(word(start + from, &scan, if place == 0 { blank } else { 0 }, *hash));
        }
    }
}

fn word(start: usize, scan: &Scan, blank: u8, hash: u64) -> Word {
    let mut facts = blank;
    for (class, fact) in [(SYMBOL, ALL_SYMBOLS), (PUNCTUATION, ALL_PUNCTUATION)] {
        facts |= if scan.all & class != 0 { fact } else { 0 };
    }
    facts |= if scan.any & LETTER != 0 { HAS_LETTER } else { 0 };
    facts |= if scan.chars == 1 && scan.any & STOP != 0 { ENDS_SENTENCE } else { 0 };
    Word { hash, start: start as u32, end: scan.end as u32, chars: scan.chars, facts }
}

/// A run without blanks.
struct Scan {
    end: usize,
    chars: u32,
    /// Classes that a character has.
    any: u16,
    /// Classes that all characters have.
    all: u16,
}

impl Scan {
    fn of(text: &str, start: usize, classes: &Classes) -> Self {
        let bytes = text.as_bytes();
        let mut scan = Self { end: start, chars: 0, any: 0, all: u16::MAX };
        let mut continuations = 0;
        while let Some(byte) = bytes.get(scan.end) {
            let mut class = classes.of_ascii(*byte);
            let mut length = 1;
            if !byte.is_ascii() {
                let Some(c) = text[scan.end..].chars().next() else { break };
                (class, length) = (classes.of(c), c.len_utf8());
                continuations += length - 1;
            }
            if class & SPACE != 0 {
                continuations -= length - 1;
                break;
            }
            scan.any |= class;
            scan.all &= class;
            scan.end += length;
        }
        scan.chars = (scan.end - start - continuations) as u32;
        scan
    }
}

fn skip_blanks(text: &str, at: usize, classes: &Classes) -> usize {
    match text.as_bytes().get(at..) {
        Some([b' ', next, ..]) if next.is_ascii_alphanumeric() => at + 1,
        _ => text.len() - text[at..].trim_start_matches(|c| classes.of(c) & SPACE != 0).len(),
    }
}

/// Sentences of a line, given its words: a new one begins with the first word after a terminal that is neither punctuation
/// nor a terminal, where a wide blank counts as a word. A line without words is one sentence.
pub(crate) fn sentences(words: &[Word]) -> u64 {
    let (mut count, mut ended) = (1, false);
    for (place, word) in words.iter().enumerate() {
        let wide = place > 0 && word.facts & AFTER_WIDE_BLANK != 0;
        let begins = word.facts & (ALL_PUNCTUATION | ENDS_SENTENCE) == 0;
        if ended && (wide || begins) {
            count += 1;
            ended = false;
        }
        ended |= word.facts & ENDS_SENTENCE != 0;
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<&str> {
        Segmenter::default().segment(text).iter().map(|word| &text[word.start as usize..word.end as usize]).collect()
    }

    fn count(text: &str) -> u64 {
        sentences(Segmenter::default().segment(text))
    }

    #[test]
    fn words_stand_between_blanks_of_every_kind() {
        assert_eq!(words(" a\u{a0}bc\u{2028}\u{1c}d\n\n"), ["a", "bc", "d"]);
        assert_eq!(words("Don't stop, (it's) 3 km."), ["Do", "n't", "stop", ",", "(", "it", "'s", ")", "3", "km", "."]);
        assert_eq!(words("床前明月光，疑是地上霜。"), ["床前明月光，疑是地上霜", "。"]);
        assert_eq!(words(" \n"), Vec::<&str>::new());
    }

    #[test]
    fn facts_are_those_of_the_characters() {
        let mut segmenter = Segmenter::default();
        let facts: Vec<_> = segmenter.segment("é1 -- 42 $").iter().map(|word| (word.chars, word.has_letter(), word.is_symbol())).collect();
        assert_eq!(facts, [(2, true, false), (2, false, true), (2, false, false), (1, false, true)]);
    }

    #[test]
    fn sentences_end_with_a_terminal_and_what_closes_it() {
        for (text, expected) in
            [("One. Two! Three?", 3), ("He said: \"Go.\" She went.", 2), ("Wait ... what", 1), ("a.m. is not an end", 1), ("", 1)]
        {
            assert_eq!(count(text), expected, "{text}");
        }
        assert_eq!((count("End. ("), count("End.  (")), (1, 2), "a wide blank is a word");
    }

    proptest! {
        #[test]
        fn words_are_the_text_without_blanks(text in any::<String>(), crafted in r#"[a-z .,'"’\n\u{a0}\u{2003}é中。1-3-]{0,60}"#) {
            for text in [text, crafted] {
                let bare: String = text.chars().filter(|c| CLASSES.of(*c) & SPACE == 0).collect();
                prop_assert_eq!(words(&text).concat(), bare);
            }
        }

        #[test]
        fn words_of_lines_are_those_of_the_text(lines in proptest::collection::vec("[a-zA-Z .,;:'()!?-]{0,20}", 0..6)) {
            let apart: Vec<&str> = lines.iter().flat_map(|line| words(line)).collect();
            let text = lines.join("\n");
            prop_assert_eq!(words(&text), apart);
        }

        #[test]
        fn a_used_segmenter_is_as_good_as_a_new_one(first in any::<String>(), second in any::<String>()) {
            let mut used = Segmenter::default();
            used.segment(&first);
            let mut new = Segmenter::default();
            prop_assert_eq!(used.segment(&second), new.segment(&second));
        }
    }
}
