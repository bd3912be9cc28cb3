//! Optimizers: one file a rule, a pure schedule, and clipping by the global norm.
//!
//! Promises: an update is a function of the weights, the gradients, the state and the committed step; nothing counts calls,
//! so an optimizer that is restored at step N goes on as if it had never stopped. Weight decay is decoupled and touches only
//! tensors of two or more dimensions.

mod adamw;
mod schedule;
mod sgd;
#[cfg(test)]
mod tests;

use forebay_schemas::run::{Optimizer as Settings, OptimizerKind};
use tch::Tensor;

use crate::error::{Error, Kind, Result};
use crate::model::Named;
pub use schedule::learning_rate;

/// Tensors of so many dimensions or more decay: matrices and kernels do, scales and biases do not.
const DECAYS_FROM: usize = 2;

/// An optimizer with its state. Its lists have a tensor for each parameter, in the same order.
pub struct Optimizer {
    settings: Settings,
    /// Steps of the run, which end the schedule.
    steps: u64,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    /// First moments, or momenta.
    first: Vec<Tensor>,
    /// AdamW: second moments.
    second: Vec<Tensor>,
}

impl Optimizer {
    /// An optimizer for `parameters` with zero state, for a run of `steps` steps.
    pub fn new(settings: &Settings, steps: u64, parameters: &[Named]) -> Self {
        // Those that decay first, so that either kind is one slice.
        let (matrices, vectors): (Vec<_>, Vec<_>) = parameters.iter().partition(|(_, parameter)| parameter.dim() >= DECAYS_FROM);
        let (names, parameters): (Vec<_>, Vec<_>) =
            matrices.into_iter().chain(vectors).map(|(name, parameter)| (name.clone(), parameter.shallow_clone())).unzip();
        let zeros = || parameters.iter().map(|parameter| parameter.detach().zeros_like()).collect();
        let first = zeros();
        let second = if settings.kind == OptimizerKind::Adamw { zeros() } else { Vec::new() };
        Self { settings: settings.clone(), steps, names, parameters, first, second }
    }

    /// Global norm of the gradients. Not finite if any gradient is not.
    ///
    /// On one thread: several would add in an order that depends on their number, and replicas with different numbers of
    /// threads must clip alike to the bit.
    pub fn gradient_norm(&self) -> Result<f64> {
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        let norm = forebay_c10d::norm(&self.gradients());
        tch::set_num_threads(threads);
        norm.map_err(broken)
    }

    /// The learning rate of the step after `step` applied ones.
    pub fn learning_rate(&self, step: u64) -> f64 {
        learning_rate(&self.settings, step, self.steps)
    }

    /// Updates the parameters by their gradients, which it may scale in place; `step` steps were applied before this one, and
    /// `gradient_norm` is [`Self::gradient_norm`]. Returns the learning rate that it took.
    pub fn apply(&mut self, step: u64, gradient_norm: f64) -> Result<f64> {
        let limit = self.settings.clip_norm;
        let gradients = self.gradients();
        if limit > 0.0 && gradient_norm > limit {
            forebay_c10d::scale(&gradients, limit / gradient_norm).map_err(broken)?;
        }
        let learning_rate = self.learning_rate(step);
        let decaying = self.parameters.partition_point(|parameter| parameter.dim() >= DECAYS_FROM);
        for (range, decay) in [(0..decaying, self.settings.weight_decay), (decaying..self.parameters.len(), 0.0)] {
            let (parameters, gradients, first) = (&self.parameters[range.clone()], &gradients[range.clone()], &self.first[range.clone()]);
            match self.settings.kind {
                OptimizerKind::Adamw => {
                    adamw::update(&self.settings, learning_rate, decay, step, [parameters, gradients, first, &self.second[range]])?;
                }
                OptimizerKind::Sgd => sgd::update(&self.settings, learning_rate, decay, [parameters, gradients, first])?,
            }
        }
        Ok(learning_rate)
    }

    /// The state as named tensors that share memory with it, in an order that is the same in every process.
    pub fn state(&self) -> Vec<Named> {
        let named = |prefix: &str, name: &String, tensor: &Tensor| (format!("{prefix}.{name}"), tensor.shallow_clone());
        let first = self.names.iter().zip(&self.first).map(|(name, tensor)| named("first", name, tensor));
        let second = self.names.iter().zip(&self.second).map(|(name, tensor)| named("second", name, tensor));
        first.chain(second).collect()
    }

    fn gradients(&self) -> Vec<Tensor> {
        self.parameters.iter().map(Tensor::grad).collect()
    }
}

fn broken(error: forebay_c10d::Error) -> Error {
    Error::with_source(Kind::Internal, "optimizer", error)
}
