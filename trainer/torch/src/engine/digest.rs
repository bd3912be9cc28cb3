//! The rolling digest of a replica's state, by which replicas notice that one of them went astray.
//!
//! To hash all weights and moments every step would cost more than 1 % of a short step, so each step hashes one window of the
//! state and the next step the next: a wrong bit is found by the time the windows have come round, at once in a state smaller
//! than a window. What the step is about to do (loss, gradient norm, learning rate, number) is in every digest.
//! Deliberately absent: random generators and a loss scale. No model draws, and nothing is scaled: there is no such state.

use forebay_c10d::read;
use forebay_schemas::Digest;
use tch::Tensor;
use twox_hash::XxHash3_128;

use crate::error::{Error, Kind, Result, of_libtorch};

/// Values hashed in a step: 1 MiB, about a tenth of a millisecond.
const WINDOW: usize = 1 << 18;

pub(super) fn of_step(state: &[Tensor], step: u64, loss: f64, gradient_norm: f64, learning_rate: f64) -> Result<Digest> {
    let mut hasher = XxHash3_128::new();
    for (tensor, start, length) in window(state, step) {
        let part = tensor.f_view([-1]).and_then(|flat| flat.f_narrow(0, start as i64, length as i64)).map_err(of_libtorch)?;
        read(&part, |bytes| hasher.write(bytes)).map_err(|error| Error::with_source(Kind::Internal, "digest of the state", error))?;
    }
    let seen = hasher.finish_128().to_le_bytes();
    let numbers = [step, loss.to_bits(), gradient_norm.to_bits(), learning_rate.to_bits()].map(u64::to_le_bytes);
    Ok(Digest::of_parts(numbers.iter().map(|bytes| &bytes[..]).chain([&seen[..]])))
}

/// The parts of the tensors that step `step` looks at: each with its first element and their number.
fn window(tensors: &[Tensor], step: u64) -> Vec<(&Tensor, usize, usize)> {
    let total: usize = tensors.iter().map(Tensor::numel).sum();
    let windows = total.div_ceil(WINDOW).max(1);
    let begin = (step % windows as u64) as usize * WINDOW;
    let end = (begin + WINDOW).min(total);
    let mut first = 0;
    let mut parts = Vec::new();
    for tensor in tensors {
        let (from, to) = (begin.max(first), end.min(first + tensor.numel()));
        if from < to {
            parts.push((tensor, from - first, to - from));
        }
        first += tensor.numel();
    }
    parts
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn state(sizes: &[i64]) -> Vec<Tensor> {
        sizes.iter().map(|&size| Tensor::zeros([size], (Kind::Float, Device::Cpu))).collect()
    }

    #[test]
    fn a_wrong_bit_anywhere_is_seen_before_the_windows_have_come_round() {
        let sizes = [3, 0, WINDOW as i64 * 2 - 1, 5, WINDOW as i64];
        let (right, wrong) = (state(&sizes), state(&sizes));
        let windows = 4;
        for (tensor, element) in [(0, 0), (2, 1), (2, WINDOW as i64), (3, 4), (4, WINDOW as i64 - 1)] {
            let mut value = wrong[tensor].narrow(0, element, 1);
            let _ = value.fill_(f64::from(f32::from_bits(1)));
            let differs =
                |step| of_step(&right, step, 1.0, 1.0, 1.0).expect("digest") != of_step(&wrong, step, 1.0, 1.0, 1.0).expect("digest");
            assert_eq!((7..7 + windows).filter(|&step| differs(step)).count(), 1, "tensor {tensor}, element {element}");
            let _ = value.fill_(0.0);
        }
    }

    #[test]
    fn what_the_step_is_about_to_do_is_in_every_digest() {
        let state = state(&[2]);
        let of = |step, loss, norm, rate| of_step(&state, step, loss, norm, rate).expect("digest");
        let all = [of(1, 1.0, 1.0, 1.0), of(2, 1.0, 1.0, 1.0), of(1, 2.0, 1.0, 1.0), of(1, 1.0, 2.0, 1.0), of(1, 1.0, 1.0, 2.0)];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    }
}
