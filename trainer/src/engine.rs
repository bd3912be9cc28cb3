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
    /// Mean loss of each micro-batch that this replica computed, in order.
    pub losses: Vec<f64>,
    /// Mean loss over the K micro-batches of all replicas.
    pub loss: f64,
    /// Global norm of the gradient over all replicas, before clipping.
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
    /// Waiting for the sum over the replicas after that.
    pub reduce: Duration,
}

/// A step in work.
struct Work {
    losses: Vec<f64>,
    phases: Phases,
    /// Mean loss, then the statistics of the step: this replica's share of the mean over K.
    shares: Option<Tensor>,
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

    /// Everything that a replica without state takes from one that has it.
    pub fn state(&self) -> Vec<Named> {
        let mut state = self.weights();
        state.extend(self.optimizer_state());
        state
    }

    /// Computes `assigned` micro-batches that `next` gives, and reduces.
    ///
    /// After an error the gradients are garbage: call [`Self::discard`]. A loss or gradient that is not finite is `Invalid`:
    /// every replica sees it alike, and trying again would not help.
    pub fn compute(&mut self, assigned: usize, next: &mut dyn FnMut() -> Result<Input>, reduction: &mut dyn Reduction) -> Result<Computed> {
        let mut work = Work { losses: Vec::with_capacity(assigned), phases: Phases::default(), shares: None };
        reduction.begin()?;
        for index in 0..assigned {
            let started = Instant::now();
            let input = next()?;
            work.phases.data += started.elapsed();
            let last: Option<&mut dyn Reduction> = if index + 1 == assigned { Some(reduction) } else { None };
            let loss = self.micro_batch(&input, 1.0 / f64::from(self.micro_batches), last, &mut work)?;
            work.losses.push(loss);
        }
        if assigned == 0 {
            // The others wait for this replica's part of the sum: it is one that weighs nothing.
            self.micro_batch(&self.model.blank(), 0.0, Some(reduction), &mut work)?;
        }
        let started = Instant::now();
        reduction.finish()?;
        let shares = work.shares.ok_or_else(|| Error::new(Kind::Internal, "a step without a forward pass"))?;
        reduction.sum(&shares)?;
        work.phases.reduce = started.elapsed();

        let (loss, gradient_norm) = (shares.double_value(&[0]), self.optimizer.gradient_norm());
        if !loss.is_finite() || !gradient_norm.is_finite() {
            let found = format!("the loss is {loss} and the norm of its gradient {gradient_norm}");
            return Err(Error::new(Kind::Invalid, format!("{found}, expected finite numbers: try a smaller `optimizer.learning_rate`")));
        }
        let elements = shares.numel() as i64 - 1;
        let statistics = (elements > 0).then(|| shares.narrow(0, 1, elements).to_kind(Scalar::Float));
        Ok(Computed { losses: work.losses, loss, gradient_norm, phases: work.phases, statistics })
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

    /// Forward and backward pass of one micro-batch, whose share in the step is `weight`; returns its loss.
    fn micro_batch(&self, input: &Input, weight: f64, last: Option<&mut dyn Reduction>, work: &mut Work) -> Result<f64> {
        let started = Instant::now();
        let forward = self.model.loss(input)?;
        let scaled = &forward.loss * weight;
        let forwarded = Instant::now();
        if let Some(reduction) = last {
            reduction.before_last_backward()?;
        }
        // It fails where a peer is lost: the gradients are reduced while it runs.
        scaled.f_backward().map_err(|error| Error::with_source(Kind::Unavailable, "backward pass", error))?;
        work.phases.forward += forwarded - started;
        work.phases.backward += forwarded.elapsed();

        let loss = forward.loss.detach().to_kind(Scalar::Double).view([1]);
        let values = match forward.statistics {
            Some(statistics) => Tensor::cat(&[&loss, &statistics.to_kind(Scalar::Double)], 0),
            None => loss.shallow_clone(),
        };
        let share = values * weight;
        work.shares = Some(match work.shares.take() {
            Some(sum) => sum + share,
            None => share,
        });
        Ok(loss.double_value(&[0]))
    }
}

/// Sets the number of threads of libtorch's kernels in this process.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}
