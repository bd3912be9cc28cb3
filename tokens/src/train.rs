//! A tokenizer trained on a sample: byte-level BPE (Sennrich et al. 2016, Radford et al. 2019), a function of the sample alone.
//!
//! `<|endoftext|>` is id 0, and `<|mask|>`, where it is asked for, id 1. Deliberately absent: training another kind; any
//! `tokenizer.json` can be given instead.

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Trainer};

use crate::tokenizer::{END_OF_DOCUMENT, Error, MASK, Result};
use crate::words;

/// Trains a tokenizer of at most `vocabulary` ids on `texts`, one of which stands for a hidden token if `mask`; returns its
/// `tokenizer.json`.
pub fn train(texts: &[String], vocabulary: u32, mask: bool) -> Result<Vec<u8>> {
    let failed = |error: tokenizers::Error| Error::Train(error.to_string());
    let special: Vec<_> = [END_OF_DOCUMENT].into_iter().chain(mask.then_some(MASK)).map(|name| AddedToken::from(name, true)).collect();
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocabulary as usize)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special.clone())
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
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.add_special_tokens(&special);
    canonical(&tokenizer.to_string(false).map_err(failed)?)
}

/// The same JSON with its objects' keys in one order: maps inside the library have none.
fn canonical(json: &str) -> Result<Vec<u8>> {
    let failed = |error: serde_json::Error| Error::Train(error.to_string());
    let value: serde_json::Value = serde_json::from_str(json).map_err(failed)?;
    serde_json::to_vec(&value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoder, Tokenizer};

    fn sample() -> Vec<String> {
        // Many words of equal frequency, so that ties are broken all the time.
        (0..200u64)
            .map(|i| format!("fn f{i}(x: &str) -> u{:x} {{\n    x.len() + {i}\n}}\n", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
            .collect()
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        let json = train(&sample(), 400, false).expect("tokenizer");
        for _ in 0..3 {
            assert_eq!(json, train(&sample(), 400, false).expect("tokenizer"));
        }
        let tokenizer = Tokenizer::from_json(&json).expect("tokenizer");
        assert_eq!((tokenizer.end_of_document(), tokenizer.mask(), tokenizer.vocabulary()), (0, None, 400));
        let masked = Tokenizer::from_json(&train(&sample(), 400, true).expect("tokenizer")).expect("tokenizer");
        assert_eq!((masked.end_of_document(), masked.mask(), masked.vocabulary()), (0, Some(1), 400));
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_text() {
        let tokenizer = Tokenizer::from_json(&train(&sample(), 400, true).expect("tokenizer")).expect("tokenizer");
        let text = "fn größe() { \"日本\" }\n\n  <|endoftext|> <|mask|> x";
        let ids = Encoder::new(tokenizer.clone()).encode(text).expect("ids");
        assert!(!ids.contains(&0) && !ids.contains(&1));
        assert_eq!(tokenizer.library().decode(&ids, false).expect("text"), text);
    }
}
