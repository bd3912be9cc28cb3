//! A perceptron with one hidden layer, ReLU between: the smallest model there is, to try a pipeline or to measure what surrounds it.

use tch::Tensor;

use super::initial::Initializer;
use super::input::{Input, pictures};
use super::{Forward, Model, Named, Scores};
use crate::error::Result;

pub(super) struct Mlp {
    side: i64,
    parameters: Vec<Named>,
    hidden: [Tensor; 2],
    head: [Tensor; 2],
}

impl Mlp {
    /// Of pictures with three channels. The hidden layer starts as He et al. 2015 with fan-in.
    pub(super) fn new(width: i64, side: i64, classes: i64, mut initial: Initializer) -> Self {
        let pixels = 3 * side * side;
        let mut layer = |name: &str, from: i64, to: i64, deviation: f64| {
            let weight = initial.normal(format!("{name}.weight"), &[to, from], deviation);
            [weight, initial.constant(format!("{name}.bias"), &[to], 0.0)]
        };
        let hidden = layer("hidden", pixels, width, (2.0 / pixels as f64).sqrt());
        let head = layer("head", width, classes, 0.01);
        Self { side, parameters: initial.into_parameters(), hidden, head }
    }

    fn logits(&self, pixels: &Tensor) -> Tensor {
        let [[hidden, hidden_bias], [head, head_bias]] = [&self.hidden, &self.head];
        pixels.flatten(1, -1).linear(hidden, Some(hidden_bias)).relu_().linear(head, Some(head_bias))
    }
}

impl Model for Mlp {
    fn parameters(&self) -> &[Named] {
        &self.parameters
    }

    fn buffers(&self) -> &[Named] {
        &[]
    }

    fn loss(&self, input: &Input) -> Result<Forward> {
        let (pixels, labels) = pictures(input, self.side)?;
        let loss = self.logits(&pixels).cross_entropy_loss::<&Tensor>(labels, None, tch::Reduction::Mean, -100, 0.0);
        Ok(Forward { loss, statistics: None })
    }

    fn score(&self, input: &Input) -> Result<Scores> {
        let _guard = tch::no_grad_guard();
        let (pixels, labels) = pictures(input, self.side)?;
        Ok(super::score(&self.logits(&pixels), labels, labels.numel() as u64))
    }

    fn blank(&self) -> Input {
        Input::blank_images(self.side)
    }
}
