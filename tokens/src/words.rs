//! Text to words as GPT-2 cuts them (Radford et al. 2019), by hand instead of by a regular expression:
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
//!
//! What a letter or a number is beyond ASCII is asked of the library once a character and remembered, so that both
//! always agree. Deliberately absent: other patterns.

use std::collections::HashMap;

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// The classes of the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Letter,
    Number,
    Space,
    Other,
}

/// Classes of the characters met so far, beyond ASCII.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes(HashMap<char, Class>);

impl Classes {
    fn of(&mut self, c: char) -> Class {
        match c {
            'a'..='z' | 'A'..='Z' => Class::Letter,
            '0'..='9' => Class::Number,
            ' ' | '\t'..='\r' => Class::Space,
            _ if c.is_ascii() => Class::Other,
            _ => *self.0.entry(c).or_insert_with(|| ask(c)),
        }
    }
}

/// The class of a character, by whether the library cuts between it and a letter or a digit.
fn ask(c: char) -> Class {
    if c.is_whitespace() {
        return Class::Space;
    }
    let joins = |before: char| {
        let mut text = PreTokenizedString::from(format!("{before}{c}"));
        let cut = ByteLevel::new(false, false, true).pre_tokenize(&mut text);
        cut.is_ok() && text.get_splits(OffsetReferential::Original, OffsetType::Byte).len() == 1
    };
    if joins('a') {
        Class::Letter
    } else if joins('1') {
        Class::Number
    } else {
        Class::Other
    }
}

/// The words of a text; together they are the text.
pub(crate) fn split<'a>(text: &'a str, classes: &'a mut Classes) -> impl Iterator<Item = &'a str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (word, tail) = rest.split_at(first_word(rest, classes));
        rest = tail;
        Some(word)
    })
}

/// Bytes of the first word of a text that is not empty.
fn first_word(text: &str, classes: &mut Classes) -> usize {
    if let Some(length) = contraction(text.as_bytes()) {
        return length;
    }
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let class = classes.of(first);
    // ` ?` before a run of anything but blanks.
    if first == ' '
        && let Some(second) = chars.next()
        && classes.of(second) != Class::Space
    {
        let class = classes.of(second);
        return 1 + run(&text[1..], class, classes);
    }
    let length = run(text, class, classes);
    if class != Class::Space || length == text.len() {
        return length;
    }
    // `\s+(?!\S)`: all blanks but the last, which may belong to the word that follows; a single one stands alone.
    let last = text[..length].chars().next_back().map_or(0, char::len_utf8);
    if length > last { length - last } else { length }
}

fn contraction(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

/// Bytes of the longest start of `text` in one class.
fn run(text: &str, class: Class, classes: &mut Classes) -> usize {
    let bytes = text.as_bytes();
    let ascii = match class {
        Class::Letter => bytes.iter().position(|byte| !byte.is_ascii_alphabetic()),
        Class::Number => bytes.iter().position(|byte| !byte.is_ascii_digit()),
        Class::Space => bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t'..=b'\r')),
        Class::Other => {
            bytes.iter().position(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'\t'..=b'\r'))
        }
    };
    let ascii = ascii.unwrap_or(bytes.len());
    if bytes.get(ascii).is_none_or(u8::is_ascii) {
        return ascii;
    }
    text[ascii..].char_indices().find(|(_, c)| classes.of(*c) != class).map_or(text.len(), |(at, _)| ascii + at)
}

/// A word in the alphabet of byte-level models: one printable character a byte.
pub(crate) fn to_byte_level(word: &str) -> String {
    word.bytes().map(byte_char).collect()
}

/// Printable bytes stand for themselves, the others follow from U+0100 on.
fn byte_char(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => u32::from(byte),
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7F..=0xA0 => 0x100 + 33 + u32::from(byte) - 0x7F,
        0xAD => 0x100 + 67,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words of the library, in the byte-level alphabet.
    fn library(text: &str) -> Vec<String> {
        let mut cut = PreTokenizedString::from(text);
        ByteLevel::new(false, false, true).pre_tokenize(&mut cut).expect("words");
        cut.get_splits(OffsetReferential::Original, OffsetType::Byte).into_iter().map(|(word, ..)| word.to_owned()).collect()
    }

    fn ours(text: &str) -> Vec<String> {
        split(text, &mut Classes::default()).map(to_byte_level).collect()
    }

    #[test]
    fn every_byte_has_the_library_character() {
        let alphabet: std::collections::HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        assert_eq!((0..=255).map(byte_char).collect::<std::collections::HashSet<_>>(), alphabet);
        let text: String = ('\u{1}'..='\u{2FF}').collect();
        assert_eq!(ours(&text).concat(), library(&text).concat());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn words_are_those_of_the_library(text in any::<String>()) {
            prop_assert_eq!(ours(&text), library(&text));
        }

        #[test]
        fn words_of_crafted_text_are_those_of_the_library(text in "(?s)['a-zA-Zlvret0-9 \t\r\n\u{a0}\u{85}\u{2003}.,{}()_ß漢한²Ⅷ①́ः٣🦀]{0,40}") {
            prop_assert_eq!(ours(&text), library(&text));
        }
    }
}
