//! Batch normalisation whose running statistics are a function of the step (Ioffe and Szegedy 2015).
//!
//! A micro-batch is normalised by its own mean and variance. These are handed out, summed over the micro-batches of the step
//! wherever they were computed, and after the commit every replica moves its running statistics towards the mean over K:
//! so the running statistics do not depend on how many replicas there are, nor on which of them computed what.

use tch::{Kind as Scalar, Tensor};

use super::Named;
use super::initial::Initializer;

const EPSILON: f64 = 1e-5;
/// Share of a step in the running statistics.
const MOMENTUM: f64 = 0.1;

pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

/// Buffers of a model in order of construction, and the statistics of one forward pass in the same order.
#[derive(Default)]
pub(super) struct Statistics(Vec<Tensor>);

impl BatchNorm {
    pub(super) fn new(initial: &mut Initializer, buffers: &mut Vec<Named>, name: &str, channels: i64, scale: f64) -> Self {
        let f32 = (Scalar::Float, initial.device());
        let norm = Self {
            weight: initial.constant(format!("{name}.weight"), &[channels], scale),
            bias: initial.constant(format!("{name}.bias"), &[channels], 0.0),
            mean: Tensor::zeros([channels], f32),
            variance: Tensor::ones([channels], f32),
        };
        buffers.push((format!("{name}.running_mean"), norm.mean.shallow_clone()));
        buffers.push((format!("{name}.running_variance"), norm.variance.shallow_clone()));
        norm
    }

    /// With `statistics`, normalises by the batch and adds its mean and variance to them; without, by the running statistics.
    pub(super) fn forward(&self, x: &Tensor, statistics: Option<&mut Statistics>) -> Tensor {
        let Some(statistics) = statistics else {
            let (mean, variance) = (Some(&self.mean), Some(&self.variance));
            return x.batch_norm(Some(&self.weight), Some(&self.bias), mean, variance, false, 0.0, EPSILON, false);
        };
        let (y, mean, inverse_deviation) =
            x.native_batch_norm(Some(&self.weight), Some(&self.bias), None::<&Tensor>, None, true, 0.0, EPSILON);
        let values = x.numel() as f64 / mean.numel() as f64;
        let _guard = tch::no_grad_guard();
        // The kernel gives 1/√(biased variance + ε); running statistics keep the unbiased variance.
        let variance = (inverse_deviation.pow_tensor_scalar(-2) - EPSILON) * (values / (values - 1.0).max(1.0));
        statistics.0.extend([mean, variance]);
        y
    }
}

impl Statistics {
    pub(super) fn flat(self) -> Tensor {
        Tensor::cat(&self.0, 0)
    }
}

/// Moves running statistics towards those of a step, laid out as in [`super::Forward::statistics`].
pub fn absorb(buffers: &[Named], of_step: &Tensor) {
    let _guard = tch::no_grad_guard();
    let mut start = 0;
    for (_, buffer) in buffers {
        let length = buffer.numel() as i64;
        let of_step = of_step.narrow(0, start, length).view_as(buffer);
        let _ = buffer.shallow_clone().lerp_(&of_step, MOMENTUM);
        start += length;
    }
}
