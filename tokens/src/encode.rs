//! Text to token ids, fast for byte-level BPE.
//!
//! The words of a text repeat, so each is merged once, by the library's own model, and then remembered. Ids are those of
//! `Tokenizer::encode` without special tokens; a tokenizer of another shape is left to the library. Keep one a thread.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use forebay_schemas::id::Already;
use tokenizers::{Model, ModelWrapper, PreTokenizerWrapper};
use twox_hash::XxHash3_64;

use crate::tokenizer::{Error, Result, Tokenizer};
use crate::words::{Classes, split, to_byte_level};

/// Bytes that remembered words take at most, where nothing else is said.
const CACHE_BYTES: usize = 48 << 20;
/// Longer words are rare and would crowd out the others.
const LONGEST_CACHED_BYTES: usize = 256;

/// Encodes texts with one tokenizer.
pub struct Encoder {
    tokenizer: Tokenizer,
    is_byte_level: bool,
    classes: Classes,
    cache: Cache,
}

impl Encoder {
    /// An encoder with an empty memory.
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self::remembering(tokenizer, CACHE_BYTES)
    }

    /// An encoder whose words take at most so many bytes: it forgets all of them when there is no more room.
    pub fn remembering(tokenizer: Tokenizer, bytes: usize) -> Self {
        let is_byte_level = is_plain_byte_level(tokenizer.library());
        Self { tokenizer, is_byte_level, classes: Classes::default(), cache: Cache::new(bytes) }
    }

    /// Whether the fast path applies.
    pub fn is_byte_level(&self) -> bool {
        self.is_byte_level
    }

    /// The ids of a text.
    pub fn encode(&mut self, text: &str) -> Result<Vec<u32>> {
        let failed = |error: tokenizers::Error| Error::Encode(error.to_string());
        let library = self.tokenizer.library();
        if !self.is_byte_level {
            return Ok(library.encode_fast(text, false).map_err(failed)?.get_ids().to_vec());
        }
        let mut ids = Vec::with_capacity(text.len() / 3);
        let model = library.get_model();
        for word in split(text, &mut self.classes) {
            let hash = XxHash3_64::oneshot(word.as_bytes());
            if self.cache.get(hash, word, &mut ids) {
                continue;
            }
            let start = ids.len();
            ids.extend(model.tokenize(&to_byte_level(word)).map_err(failed)?.iter().map(|token| token.id));
            self.cache.put(hash, word, &ids[start..]);
        }
        Ok(ids)
    }
}

/// Words in, ids out: GPT-2's cut, plain BPE, nothing before or between.
fn is_plain_byte_level(tokenizer: &tokenizers::Tokenizer) -> bool {
    let model = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => {
            model.dropout.is_none() && model.continuing_subword_prefix.is_none() && model.end_of_word_suffix.is_none()
        }
        _ => false,
    };
    let cut = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(cut)) => cut.use_regex && !cut.add_prefix_space,
        _ => false,
    };
    let added_are_special = tokenizer.get_added_tokens_decoder().values().all(|token| token.special);
    let whole = tokenizer.get_truncation().is_none() && tokenizer.get_padding().is_none();
    model && cut && added_are_special && whole && tokenizer.get_normalizer().is_none()
}

/// Word -> ids, in two arenas.
struct Cache {
    /// Most bytes of all three, as they are allocated.
    bytes: usize,
    entries: HashMap<u64, Entry, BuildHasherDefault<Already>>,
    words: Vec<u8>,
    ids: Vec<u32>,
}

/// A place of the table: hash, entry, and a byte of its own.
const PLACE_BYTES: usize = size_of::<(u64, Entry)>() + 1;

#[derive(Clone, Copy)]
struct Entry {
    word: u32,
    word_bytes: u16,
    ids: u32,
    id_count: u16,
}

impl Cache {
    fn new(bytes: usize) -> Self {
        Self { bytes, entries: HashMap::default(), words: Vec::new(), ids: Vec::new() }
    }

    /// Bytes that are allocated when a word of so many bytes, and so many ids, has been added, and while it is.
    fn bytes_with(&self, word: usize, ids: usize) -> usize {
        let grown = |length: usize, more: usize, capacity: usize| {
            if length + more > capacity { (2 * capacity).max(length + more).max(8) } else { capacity }
        };
        // Of a table's places at most seven of eight are taken. It grows to twice as many, and both are there meanwhile.
        let places = self.entries.capacity() * 8 / 7;
        let places = if self.entries.len() == self.entries.capacity() { (3 * places).max(8) } else { places };
        grown(self.words.len(), word, self.words.capacity()) + 4 * grown(self.ids.len(), ids, self.ids.capacity()) + PLACE_BYTES * places
    }

    fn get(&self, hash: u64, word: &str, ids: &mut Vec<u32>) -> bool {
        let Some(entry) = self.entries.get(&hash) else { return false };
        let (start, end) = (entry.word as usize, entry.word as usize + usize::from(entry.word_bytes));
        // Two words may have one hash.
        if &self.words[start..end] != word.as_bytes() {
            return false;
        }
        ids.extend_from_slice(&self.ids[entry.ids as usize..entry.ids as usize + usize::from(entry.id_count)]);
        true
    }

    fn put(&mut self, hash: u64, word: &str, ids: &[u32]) {
        if word.len() > LONGEST_CACHED_BYTES {
            return;
        }
        if self.bytes_with(word.len(), ids.len()) > self.bytes {
            self.entries.clear();
            self.words.clear();
            self.ids.clear();
            if self.bytes_with(word.len(), ids.len()) > self.bytes {
                return;
            }
        }
        let entry =
            Entry { word: self.words.len() as u32, word_bytes: word.len() as u16, ids: self.ids.len() as u32, id_count: ids.len() as u16 };
        self.words.extend_from_slice(word.as_bytes());
        self.ids.extend_from_slice(ids);
        self.entries.insert(hash, entry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::train;

    fn tokenizer() -> Tokenizer {
        let sample: Vec<String> = (0..300).map(|i| format!("let x{i} = foo(\"größe {i}\").bar();  // it's 漢字\n\n")).collect();
        Tokenizer::from_json(&train(&sample, 500, false).expect("trained")).expect("tokenizer")
    }

    proptest! {
        #[test]
        fn ids_are_those_of_the_library(texts in prop::collection::vec("(?s)[ \t\na-g'()<|>endoftx0-3öß漢字ø🦀]{0,60}|<\\|endoftext\\|>|\\PC{0,30}", 1..6)) {
            thread_local!(static TOKENIZER: Tokenizer = tokenizer());
            let tokenizer = TOKENIZER.with(Clone::clone);
            let mut encoder = Encoder::new(tokenizer.clone());
            prop_assert!(encoder.is_byte_level());
            // Twice: once merged, once remembered.
            for text in texts.iter().chain(&texts) {
                let library = tokenizer.library().encode(text.as_str(), false).expect("ids");
                prop_assert_eq!(encoder.encode(text).expect("ids"), library.get_ids());
            }
        }
    }

    #[test]
    fn words_take_no_more_than_they_may_and_what_is_forgotten_is_encoded_again() {
        let tokenizer = tokenizer();
        for bytes in [0, 3 << 10, 100 << 10] {
            let mut encoder = Encoder::remembering(tokenizer.clone(), bytes);
            for number in 0..3000 {
                let text = format!("word{} größe{number}", number % 7);
                let library = tokenizer.library().encode(text.as_str(), false).expect("ids");
                assert_eq!(encoder.encode(&text).expect("ids"), library.get_ids());
                let Cache { entries, words, ids, .. } = &encoder.cache;
                let taken = words.capacity() + 4 * ids.capacity() + PLACE_BYTES * (entries.capacity() * 8 / 7);
                assert!(taken <= bytes, "{taken} of {bytes}");
            }
            assert_eq!(encoder.cache.entries.is_empty(), bytes == 0);
        }
    }

    #[test]
    fn another_shape_is_left_to_the_library() {
        let mut other = tokenizer().library().clone();
        other.with_pre_tokenizer(Some(tokenizers::pre_tokenizers::byte_level::ByteLevel::new(true, true, true)));
        let json = other.to_string(false).expect("json");
        let mut encoder = Encoder::new(Tokenizer::from_json(json.as_bytes()).expect("tokenizer"));
        assert!(!encoder.is_byte_level());
        assert_eq!(encoder.encode("foo bar").expect("ids"), other.encode("foo bar", false).expect("ids").get_ids());
    }
}
