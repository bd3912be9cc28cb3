//! Forward, backward, apply: what a replica computes of a step.
//!
//! A step has K micro-batches. Each one's mean loss is scaled by 1/K, gradients accumulate over those that this replica was
//! given, and the last backward pass sums over the replicas: the gradient is the mean over the K, whoever computed them.
//! Promises: nothing that outlives the step changes before [`Engine::apply`], so a step that was not committed leaves no trace
//! once [`Engine::discard`] was called.
//! Deliberately absent: where micro-batches come from and whether the step counts; that is the run's.

#[cfg(test)]
pub(crate) mod tests;

use std::time::{Duration, Instant};

use forebay_schemas::run::Run;
use tch::{Kind as Scalar, Tensor};

use crate::error::{Error, Kind, Result};
use crate::model::{self, Input, Model, Named, Task};
use crate::optim::Optimizer;
use crate::reduce::Reduction;

/// A model, its optimizer and the step in work.
pub struct Engine {
    model: Box<dyn Model>,
    optimizer: Optimizer,
    /// The same tensors as the model's parameters, as collectives take them.
    parameters: Vec<Tensor>,
    micro_batches: u32,
}

/// A step that is computed and reduced, but not applied.
#[derive(Debug)]
pub struct Computed {
    /// Mean loss over the K micro-batches of all replicas.
    pub loss: f64,
    /// Global norm of the gradient, before clipping.
    pub gradient_norm: f64,
    /// Where the time went.
    pub phases: Phases,
    statistics: Option<Tensor>,
}

/// Where the time of a step went, on this replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Waiting for micro-batches.
    pub data: Duration,
    /// Forward passes.
    pub forward: Duration,
    /// Backward passes, with the communication that they hide.
    pub backward: Duration,
    /// Communication that nothing hides.
    pub exposed: Duration,
}

impl Engine {
    /// The engine of a run at step 0.
    pub fn new(run: &Run, task: &Task) -> Result<Self> {
        let model = model::build(&run.model, task, run.seed)?;
        let optimizer = Optimizer::new(&run.optimizer, run.batch.steps, model.parameters());
        let parameters = model.parameters().iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        Ok(Self { model, optimizer, parameters, micro_batches: run.batch.micro_batches })
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// The parameters in the order in which all replicas have them.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Parameters and buffers, as they are saved with a checkpoint.
    pub fn weights(&self) -> Vec<Named> {
        let named = self.model.parameters().iter().chain(self.model.buffers());
        named.map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
    }

    /// State of the optimizer, as it is saved with a checkpoint.
    pub fn optimizer_state(&self) -> Vec<Named> {
        self.optimizer.state()
    }

    /// Computes `assigned` micro-batches that `next` gives, and reduces.
    ///
    /// After an error the gradients are garbage: call [`Self::discard`]. A loss or gradient that is not finite is `Invalid`:
    /// every replica sees it alike, and trying again would not help.
    pub fn compute(&mut self, assigned: usize, next: &mut dyn FnMut() -> Result<Input>, reduction: &mut dyn Reduction) -> Result<Computed> {
        let mut phases = Phases::default();
        // Mean loss, then the statistics of the step, both as this replica's share of the mean over K.
        let mut shares: Option<Tensor> = None;
        reduction.begin()?;
        for remaining in (0..assigned.max(1)).rev() {
            let started = Instant::now();
            // A replica without micro-batches takes part in the reduction with one that weighs nothing.
            let input = if assigned == 0 { self.model.blank() } else { next()? };
            phases.data += started.elapsed();
            let weight = if assigned == 0 { 0.0 } else { 1.0 / f64::from(self.micro_batches) };
            let share = self.micro_batch(&input, weight, (remaining == 0).then_some(&mut *reduction), &mut phases)?;
            shares = Some(shares.map_or_else(|| share.shallow_clone(), |sum| sum + &share));
        }
        let started = Instant::now();
        reduction.finish()?;
        let shares = shares.ok_or_else(|| Error::new(Kind::Internal, "a step without a forward pass"))?;
        reduction.sum(&shares)?;
        phases.exposed += started.elapsed();

        let (loss, gradient_norm) = (shares.double_value(&[0]), self.optimizer.gradient_norm());
        if !loss.is_finite() || !gradient_norm.is_finite() {
            let message = format!(
                "the loss is {loss}, the norm of its gradient {gradient_norm}: expected finite numbers; a smaller `optimizer.learning_rate` may help"
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let elements = shares.numel() as i64 - 1;
        let statistics = (elements > 0).then(|| shares.narrow(0, 1, elements).to_kind(Scalar::Float));
        Ok(Computed { loss, gradient_norm, phases, statistics })
    }

    /// Applies a committed step; `step` steps were applied before it. Returns the learning rate.
    pub fn apply(&mut self, step: u64, computed: &Computed) -> Result<f64> {
        let learning_rate = self.optimizer.apply(step, computed.gradient_norm);
        if let Some(statistics) = &computed.statistics {
            model::absorb(self.model.buffers(), statistics);
        }
        self.discard()?;
        Ok(learning_rate)
    }

    /// Forgets the gradients of a step.
    pub fn discard(&mut self) -> Result<()> {
        forebay_c10d::clear_gradients(&self.parameters).map_err(|error| Error::with_source(Kind::Internal, "gradients", error))
    }

    /// Forward and backward pass of one micro-batch; returns its weighted loss and statistics, `[1 + elements of the buffers]`.
    fn micro_batch(&self, input: &Input, weight: f64, last: Option<&mut dyn Reduction>, phases: &mut Phases) -> Result<Tensor> {
        let started = Instant::now();
        let forward = self.model.loss(input)?;
        let loss = &forward.loss * weight;
        let forwarded = Instant::now();
        phases.forward += forwarded - started;
        if let Some(reduction) = last {
            reduction.before_last_backward()?;
        }
        // It fails where a peer is lost: the gradients are reduced while it runs.
        loss.f_backward().map_err(|error| Error::with_source(Kind::Unavailable, "backward pass", error))?;
        phases.backward += forwarded.elapsed();

        let loss = loss.detach().to_kind(Scalar::Double).view([1]);
        Ok(match forward.statistics {
            Some(statistics) => Tensor::cat(&[loss, statistics.to_kind(Scalar::Double) * weight], 0),
            None => loss,
        })
    }
}

/// Sets the number of threads of libtorch's kernels in this process.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}
