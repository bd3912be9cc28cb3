//! The tokenizer: given as a file, or trained on the kept text.
//!
//! A trained one is a byte-level BPE (Sennrich et al. 2016, Radford et al. 2019) with `<|endoftext|>` as id 0, a function
//! of the sample alone. Deliberately absent: training another kind; any `tokenizer.json` can be given instead.

use std::collections::HashMap;

use bytes::Bytes;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer, Trainer};

use crate::error::{Error, Kind, Result};
use crate::source::named;

pub(crate) mod encode;
pub(crate) mod words;

/// The token after every document, in a tokenizer trained here.
pub(crate) const END_OF_DOCUMENT: &str = "<|endoftext|>";

/// What other tokenizers call it, in the order in which they are looked for.
const ENDS: [&str; 7] = [END_OF_DOCUMENT, "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[SEP]", "<|eot_id|>"];

/// Trains a tokenizer of at most `vocabulary` ids on `texts`; returns its `tokenizer.json`.
pub(crate) fn train(texts: &[String], vocabulary: u32) -> Result<Vec<u8>> {
    let failed = |error: tokenizers::Error| Error::internal("training the tokenizer failed", error);
    let special = [AddedToken::from(END_OF_DOCUMENT, true)];
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocabulary as usize)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .max_token_length(Some(64))
        .build();
    let classes = words::Classes::default();
    let cut = |text: &str| {
        let mut classes = classes.clone();
        Ok(words::split(text, &mut classes).map(words::to_byte_level).collect::<Vec<String>>())
    };
    trainer.feed(texts.iter(), cut).map_err(failed)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.add_special_tokens(&special);
    canonical(&tokenizer.to_string(false).map_err(failed)?)
}

/// The same JSON with its objects' keys in one order: maps inside the library have none.
fn canonical(json: &str) -> Result<Vec<u8>> {
    let failed = |error: serde_json::Error| Error::internal("writing the tokenizer failed", error);
    let value: serde_json::Value = serde_json::from_str(json).map_err(failed)?;
    serde_json::to_vec(&value).map_err(failed)
}

/// The bytes of a given `tokenizer.json`.
pub(crate) async fn read(file: &str) -> Result<Bytes> {
    let failed = |reason| Error::new(Kind::Invalid, format!("setting `tokenizer.file`: reading `{file}` failed: {reason}"));
    named::read(file).await.map_err(failed)
}

/// A loaded tokenizer and the id that ends a document.
pub(crate) fn load(json: &[u8], origin: &str) -> Result<(Tokenizer, u32)> {
    let invalid = |error| Error::with_source(Kind::Invalid, format!("tokenizer `{origin}`: expected a Hugging Face tokenizer.json"), error);
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(invalid)?;
    // Text that spells a special token is text: a document cannot forge its own end.
    tokenizer.set_encode_special_tokens(true);
    let vocabulary: HashMap<String, u32> = tokenizer.get_vocab(true);
    let end = ENDS.iter().find_map(|name| vocabulary.get(*name)).copied();
    let end = end.ok_or_else(|| {
        Error::new(Kind::Invalid, format!("tokenizer `{origin}`: found no end-of-document token, expected one of {}", ENDS.join(" ")))
    })?;
    Ok((tokenizer, end))
}

/// Number of ids, up to the largest in use.
pub(crate) fn vocabulary(tokenizer: &Tokenizer) -> u32 {
    tokenizer.get_vocab(true).values().max().map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<String> {
        // Many words of equal frequency, so that ties are broken all the time.
        (0..200u64)
            .map(|i| format!("fn f{i}(x: &str) -> u{:x} {{\n    x.len() + {i}\n}}\n", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
            .collect()
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        let json = train(&sample(), 400).expect("tokenizer");
        for _ in 0..3 {
            assert_eq!(json, train(&sample(), 400).expect("tokenizer"));
        }
        let (tokenizer, end) = load(&json, "trained").expect("tokenizer");
        assert_eq!(end, 0);
        assert_eq!(vocabulary(&tokenizer), 400);
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_text() {
        let (tokenizer, _) = load(&train(&sample(), 400).expect("tokenizer"), "trained").expect("tokenizer");
        let text = "fn größe() { \"日本\" }\n\n  <|endoftext|> x";
        let ids = encode::Encoder::new(tokenizer.clone()).encode(text).expect("ids");
        assert!(!ids.contains(&0));
        assert_eq!(tokenizer.decode(&ids, false).expect("text"), text);
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let error = load(b"{}", "x/tokenizer.json").expect_err("not a tokenizer");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("x/tokenizer.json"), "{error}");
    }
}
