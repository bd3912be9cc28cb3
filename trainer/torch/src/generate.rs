//! Text from a trained language model, drawn token by token.
//!
//! Promises: the same checkpoint, prompt and seed give the same text on the same machine. Deliberately absent: speed; every
//! token is a forward pass over the whole window.

use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::id::Digest;
use forebay_store::Checkpoints;
use forebay_tokens::Tokenizer;
use tch::{Device, Tensor};
use tokio::runtime::Handle;

use crate::error::{Error, Kind, Result, of_libtorch};
use crate::evaluate::open;
use crate::model::Task;
use crate::source::Source;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Tokens to add; fewer if the document ends.
    pub tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Draws among so many likeliest tokens; 0 among all.
    pub top_k: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// Continues `prompt`, computing on `device`; returns prompt and continuation.
///
/// Blocks; not for a thread that runs async tasks.
pub fn generate(
    runtime: &Handle,
    checkpoints: &Checkpoints,
    manifest: &CheckpointManifest,
    prompt: &str,
    sampling: &Sampling,
    device: Device,
) -> Result<String> {
    if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
        return Err(Error::new(Kind::Invalid, format!("temperature: found {}, expected at least 0", sampling.temperature)));
    }
    let (source, _, model) = open(runtime, checkpoints, manifest, device)?;
    let Task::Text { vocabulary, length } = source.task else {
        return Err(Error::new(Kind::Invalid, format!("run `{}`: its model classifies images, expected a language model", manifest.run)));
    };
    let tokenizer = tokenizer(runtime, &source)?;
    let (tokenizer, end) = (tokenizer.library(), tokenizer.end_of_document());
    let unreadable = |error| Error::with_source(Kind::Corrupt, "tokenizer", error);
    let mut ids = tokenizer.encode(prompt, false).map_err(unreadable)?.get_ids().to_vec();
    if let Some(id) = ids.iter().find(|&&id| i64::from(id) >= vocabulary) {
        return Err(Error::new(Kind::Corrupt, format!("tokenizer: found id {id}, expected below {vocabulary}")));
    }
    if ids.is_empty() {
        // No model is trained to begin a document: its first token follows from nothing.
        return Err(Error::new(Kind::Invalid, format!("prompt: found {prompt:?}, expected text to continue")));
    }
    for place in 0..sampling.tokens {
        let window: Vec<i64> = ids[ids.len().saturating_sub(length as usize)..].iter().map(|&id| i64::from(id)).collect();
        let logits = model.next_token(&Tensor::f_from_slice(&window).map_err(of_libtorch)?.view([1, -1]).to_device(device))?;
        let logits = Vec::<f64>::try_from(logits.to_kind(tch::Kind::Double)).map_err(of_libtorch)?;
        let id = draw(&logits, sampling, uniform(sampling.seed, place));
        if id as u32 == end {
            break;
        }
        ids.push(id as u32);
    }
    tokenizer.decode(&ids, true).map_err(unreadable)
}

fn tokenizer(runtime: &Handle, source: &Source) -> Result<Tokenizer> {
    if let Some(tokenizer) = source.transform.tokenizer() {
        return Ok(tokenizer.clone());
    }
    let missing = || Error::new(Kind::Corrupt, format!("dataset version {}: found no tokenizer", source.manifest.version));
    let named = source.manifest.tokenizer.as_ref().ok_or_else(missing)?;
    let bytes = runtime.block_on(source.dataset.get_object(&named.object))?;
    Tokenizer::with_end(&bytes, named.end_of_document)
        .map_err(|error| Error::with_source(Kind::Corrupt, format!("tokenizer `{}`", named.object.path), error))
}

/// The token that the uniform number `at` in 0…1 falls on.
fn draw(logits: &[f64], sampling: &Sampling, at: f64) -> usize {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if sampling.temperature == 0.0 {
        return order.first().copied().unwrap_or(0);
    }
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let highest = order.first().map_or(0.0, |&id| logits[id]);
    let weights: Vec<f64> = order.iter().map(|&id| ((logits[id] - highest) / sampling.temperature).exp()).collect();
    let mut left = at * weights.iter().sum::<f64>();
    for (&id, weight) in order.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return id;
        }
    }
    order.last().copied().unwrap_or(0)
}

/// A number in 0…1 for a place in the text.
fn uniform(seed: u64, place: usize) -> f64 {
    let bits = Digest::of_parts([&seed.to_le_bytes()[..], &(place as u64).to_le_bytes()]).as_u64();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Sampling = Sampling { tokens: 1, temperature: 1.0, top_k: 0, seed: 0 };

    proptest! {
        #[test]
        fn a_draw_is_among_the_likeliest(logits in prop::collection::vec(-5.0..5.0f64, 1..50), top_k in 1usize..60, at in 0.0..1.0f64) {
            let id = draw(&logits, &Sampling { top_k, ..PLAIN }, at);
            let above = logits.iter().filter(|&&other| other > logits[id]).count();
            prop_assert!(above < top_k);
        }
    }

    #[test]
    fn no_temperature_takes_the_likeliest() {
        for at in [0.0, 0.5, 0.999] {
            assert_eq!(draw(&[0.1, 3.0, -1.0, 2.9], &Sampling { temperature: 0.0, ..PLAIN }, at), 1);
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.7f64.ln(), 0.2f64.ln(), 0.1f64.ln()];
        let mut counts = [0.0; 3];
        (0..20_000).for_each(|place| counts[draw(&logits, &PLAIN, uniform(7, place))] += 1.0 / 20_000.0);
        assert!(counts.iter().zip([0.7f64, 0.2, 0.1]).all(|(found, expected)| (found - expected).abs() < 0.015), "{counts:?}");
    }

    #[test]
    fn equal_logits_are_drawn_in_the_order_of_ids() {
        assert_eq!(draw(&[1.0, 1.0], &PLAIN, 0.0), 0);
        assert_eq!(draw(&[1.0, 1.0], &PLAIN, 0.999), 1);
    }
}
