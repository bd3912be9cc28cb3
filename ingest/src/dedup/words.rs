//! The words that texts are compared by.
//!
//! Runs of letters, digits and underscores; in scripts without spaces every character is a word. Part of the durable
//! format: a change here changes which records are kept, and needs a new program version.

use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::letters::is_alphanumeric;

/// Places of the words of a text in bytes, in order.
pub(crate) fn words(text: &str) -> Words<'_> {
    Words { text, at: 0 }
}

/// Hashes of the words of a text, in order.
pub(crate) fn word_hashes(text: &str) -> impl Iterator<Item = u64> {
    words(text).map(|word| XxHash3_64::oneshot(text[word].as_bytes()))
}

/// See [`words`].
pub(crate) struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl Iterator for Words<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let bytes = self.text.as_bytes();
        let start = loop {
            let byte = *bytes.get(self.at)?;
            if byte.is_ascii() {
                if IS_WORD[usize::from(byte)] {
                    self.at += 1;
                    break self.at - 1;
                }
                self.at += 1;
                continue;
            }
            let c = self.text[self.at..].chars().next()?;
            self.at += c.len_utf8();
            if is_alphanumeric(c) {
                let start = self.at - c.len_utf8();
                if is_spaceless(c) {
                    return Some(start..self.at);
                }
                break start;
            }
        };
        while let Some(byte) = bytes.get(self.at) {
            if byte.is_ascii() {
                if !IS_WORD[usize::from(*byte)] {
                    break;
                }
                self.at += 1;
            } else {
                match self.text[self.at..].chars().next() {
                    Some(c) if is_alphanumeric(c) && !is_spaceless(c) => self.at += c.len_utf8(),
                    _ => break,
                }
            }
        }
        Some(start..self.at)
    }
}

/// Of the bytes that are characters, those that belong to words.
const IS_WORD: [bool; 128] = {
    let mut is_word = [false; 128];
    let mut byte = 0;
    while byte < 128 {
        is_word[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
        byte += 1;
    }
    is_word
};

/// Han, kana, and the other scripts of East Asia from the radicals on, without Hangul, which has spaces.
fn is_spaceless(c: char) -> bool {
    matches!(c, '\u{2E80}'..='\u{A4CF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}' | '\u{0E00}'..='\u{0EFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        words(text).map(|word| &text[word]).collect()
    }

    #[test]
    fn words_are_cut_at_everything_but_letters_digits_and_underscores() {
        assert_eq!(cut("let x_1 = foo(\"äb\");"), ["let", "x_1", "foo", "äb"]);
        assert_eq!(cut("床前明月 光a"), ["床", "前", "明", "月", "光", "a"]);
        assert_eq!(cut("a床"), ["a", "床"]);
        assert_eq!(cut(" ;"), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn words_are_runs_of_their_characters(text in "[a-c_ .ä床e\u{301}가🦀]{0,30}") {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let mut expected: Vec<String> = Vec::new();
            let mut is_open = false;
            for c in text.chars() {
                match (is_word(c), is_spaceless(c), is_open) {
                    (false, ..) => is_open = false,
                    (true, true, _) => {
                        expected.push(c.to_string());
                        is_open = false;
                    }
                    (true, false, true) => expected.last_mut().expect("open").push(c),
                    (true, false, false) => {
                        expected.push(c.to_string());
                        is_open = true;
                    }
                }
            }
            prop_assert_eq!(cut(&text), expected);
        }
    }
}
