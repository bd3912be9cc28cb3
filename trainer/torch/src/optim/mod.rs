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

use crate::model::Named;
pub use schedule::learning_rate;

/// An optimizer with its state.
pub struct Optimizer {
    settings: Settings,
    /// Steps of the run, which end the schedule.
    steps: u64,
    slots: Vec<Slot>,
}

/// A parameter and what the optimizer keeps for it.
struct Slot {
    parameter: Tensor,
    decays: bool,
    name: String,
    /// First moment, or momentum.
    first: Tensor,
    /// AdamW: second moment.
    second: Option<Tensor>,
}

impl Optimizer {
    /// An optimizer for `parameters` with zero state, for a run of `steps` steps.
    pub fn new(settings: &Settings, steps: u64, parameters: &[Named]) -> Self {
        let slots = parameters
            .iter()
            .map(|(name, parameter)| Slot {
                parameter: parameter.shallow_clone(),
                decays: parameter.dim() >= 2,
                name: name.clone(),
                first: parameter.detach().zeros_like(),
                second: (settings.kind == OptimizerKind::Adamw).then(|| parameter.detach().zeros_like()),
            })
            .collect();
        Self { settings: settings.clone(), steps, slots }
    }

    /// Global norm of the gradients. Not finite if any gradient is not.
    ///
    /// On one thread: several would add in an order that depends on their number, and replicas with different numbers of
    /// threads must clip alike to the bit.
    pub fn gradient_norm(&self) -> f64 {
        let _guard = tch::no_grad_guard();
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        let norms: Vec<Tensor> = self.slots.iter().map(|slot| slot.parameter.grad().norm()).collect();
        let norm = Tensor::stack(&norms, 0).norm().double_value(&[]);
        tch::set_num_threads(threads);
        norm
    }

    /// The learning rate of the step after `step` applied ones.
    pub fn learning_rate(&self, step: u64) -> f64 {
        learning_rate(&self.settings, step, self.steps)
    }

    /// Updates the parameters by their gradients, which it may scale in place; `step` steps were applied before this one, and
    /// `gradient_norm` is [`Self::gradient_norm`]. Returns the learning rate that it took.
    pub fn apply(&mut self, step: u64, gradient_norm: f64) -> f64 {
        let _guard = tch::no_grad_guard();
        let limit = self.settings.clip_norm;
        if limit > 0.0 && gradient_norm > limit {
            for slot in &self.slots {
                let _ = slot.parameter.grad().g_mul_scalar_(limit / gradient_norm);
            }
        }
        let learning_rate = self.learning_rate(step);
        for slot in &mut self.slots {
            if slot.decays && self.settings.weight_decay > 0.0 {
                let _ = slot.parameter.g_mul_scalar_(1.0 - learning_rate * self.settings.weight_decay);
            }
            let gradient = slot.parameter.grad();
            match &mut slot.second {
                Some(second) => {
                    adamw::update(&self.settings, learning_rate, step, &mut slot.parameter, &gradient, &mut slot.first, second);
                }
                None => sgd::update(&self.settings, learning_rate, &mut slot.parameter, &gradient, &mut slot.first),
            }
        }
        learning_rate
    }

    /// The state as named tensors that share memory with it, in an order that is the same in every process.
    pub fn state(&self) -> Vec<Named> {
        let named = |prefix: &str, slot: &Slot, tensor: &Tensor| (format!("{prefix}.{}", slot.name), tensor.shallow_clone());
        let first = self.slots.iter().map(|slot| named("first", slot, &slot.first));
        let second = self.slots.iter().filter_map(|slot| Some(named("second", slot, slot.second.as_ref()?)));
        first.chain(second).collect()
    }
}
