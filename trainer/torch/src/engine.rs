//! Forward, backward, apply: what a replica computes of a step.
//!
//! A step has K micro-batches. Each one's mean loss is scaled by 1/K, and a [`Reduction`] sums the gradients: over those that
//! this replica was given, then over the replicas. So the gradient is the mean over the K, whoever computed them.
//! Promises: nothing that outlives the step changes before [`Engine::apply`]; what was computed of a step that was not committed
//! is kept for the next generation, or leaves no trace once [`Engine::discard`] was called.
//! Deliberately absent: where micro-batches come from and whether the step counts; that is the run's.

mod digest;
#[cfg(test)]
pub(crate) mod tests;

use std::time::{Duration, Instant};

use forebay_c10d::{Leaving, ProcessGroup};
use forebay_schemas::Digest;
use forebay_schemas::run::{Reduce, Run};
use tch::{Device, Kind as Scalar, Tensor};

use crate::error::{Error, Kind, Result};
use crate::model::{self, Input, Model, Named, Task};
use crate::optim::Optimizer;
use crate::reduce::{Reduction, reduction};

/// A model, its optimizer and the step in work.
pub struct Engine {
    model: Box<dyn Model>,
    optimizer: Optimizer,
    /// The same tensors as the model's parameters, as collectives take them.
    parameters: Vec<Tensor>,
    /// The same tensors as [`Self::state`], which are written in place only.
    state: Vec<Tensor>,
    micro_batches: u32,
    reduction: Box<dyn Reduction>,
    /// The group of the generation before.
    leaving: Option<Leaving>,
    /// Whether a replica without a micro-batch has to take part in backward, and whether this one has.
    must_compute: bool,
    computed: bool,
    phases: Phases,
}

/// A step that is computed and reduced, but not applied.
#[derive(Debug)]
pub struct Computed {
    /// Mean loss over the K micro-batches of all replicas.
    pub loss: f64,
    /// Global norm of the gradient over all replicas, before clipping.
    pub gradient_norm: f64,
    /// Where the time went.
    pub phases: Phases,
    statistics: Option<Tensor>,
}

/// Where the time of a step went, on this replica, since it was begun or gone on with.
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

impl Engine {
    /// The engine of a run at step 0, on `device`.
    pub fn new(run: &Run, task: &Task, device: Device) -> Result<Self> {
        if run.reduce == Reduce::Strict && device.is_cuda() {
            forebay_c10d::deterministic().map_err(|error| Error::with_source(Kind::Internal, "libtorch", error))?;
        }
        let model = model::build(&run.model, task, run.seed, device)?;
        let optimizer = Optimizer::new(&run.optimizer, run.batch.steps, model.parameters());
        let parameters: Vec<Tensor> = model.parameters().iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        let micro_batches = run.batch.micro_batches;
        let shares = 1 + model.buffers().iter().map(|(_, tensor)| tensor.numel() as i64).sum::<i64>();
        let reduction = reduction(run.reduce, &parameters, shares, micro_batches);
        let mut engine = Self {
            model,
            optimizer,
            parameters,
            state: Vec::new(),
            micro_batches,
            reduction,
            leaving: None,
            must_compute: false,
            computed: false,
            phases: Phases::default(),
        };
        engine.state = engine.state().into_iter().map(|(_, tensor)| tensor).collect();
        Ok(engine)
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.model.device()
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

    /// A generation begins, over `group`, or none for a replica that is alone. What is held of a step stays.
    pub fn attach(&mut self, group: Option<ProcessGroup>) -> Result<()> {
        self.reduction.attach(group)
    }

    /// The generation is over. A sum that was not applied does not count; what this replica computed itself is held.
    pub fn detach(&mut self) -> Result<()> {
        self.reduction.take_back()?;
        self.leaving = self.reduction.detach().map(ProcessGroup::leave);
        Ok(())
    }

    /// Begins a step, or goes on with one of which `salvaged` says that some replica, maybe this one, holds a part.
    pub fn begin(&mut self, salvaged: bool) -> Result<()> {
        self.phases = Phases::default();
        self.computed = false;
        self.must_compute = self.reduction.begin(!salvaged)?;
        Ok(())
    }

    /// Computes micro-batch `index` of the step, which was sent to [`Self::device`]; `last` if it is this replica's last. Returns its
    /// loss. `waited` is how long the replica waited for it.
    ///
    /// After an error the gradients are garbage: call [`Self::discard`].
    pub fn compute(&mut self, index: u32, input: Input, last: bool, waited: Duration) -> Result<f64> {
        self.phases.data += waited;
        let weight = 1.0 / f64::from(self.micro_batches);
        let (loss, shares) = self.pass(input, weight, last)?;
        self.reduction.add(index, &shares)?;
        Ok(loss)
    }

    /// Sums over the replicas. After an `Unavailable` what was computed is still held.
    ///
    /// A loss or gradient that is not finite is `Invalid`: every replica sees it alike, and trying again would not help.
    pub fn reduce(&mut self) -> Result<Computed> {
        if self.must_compute && !self.computed {
            // The others' backward passes wait for this replica's part of the sum: it is one that weighs nothing.
            self.pass(self.model.blank().send(self.device())?, 0.0, true).map(drop)?;
        }
        let started = Instant::now();
        let shares = self.reduction.sum()?;
        self.phases.reduce = started.elapsed();
        let (loss, gradient_norm) = (shares.double_value(&[0]), self.optimizer.gradient_norm()?);
        if !loss.is_finite() || !gradient_norm.is_finite() {
            let found = format!("the loss is {loss} and the norm of its gradient {gradient_norm}");
            return Err(Error::new(Kind::Invalid, format!("{found}, expected finite numbers: try a smaller `optimizer.learning_rate`")));
        }
        let elements = shares.numel() as i64 - 1;
        let statistics = (elements > 0).then(|| shares.narrow(0, 1, elements).to_kind(Scalar::Float));
        Ok(Computed { loss, gradient_norm, phases: self.phases, statistics })
    }

    /// What all replicas must agree on before a step is applied: a part of the state, another one for each `step` until all of
    /// it was looked at, and what the step would change it by.
    pub fn digest(&self, step: u64, computed: &Computed) -> Result<Digest> {
        digest::of_step(&self.state, step, computed.loss, computed.gradient_norm, self.optimizer.learning_rate(step))
    }

    /// Applies a committed step; `step` steps were applied before it. Returns the learning rate.
    pub fn apply(&mut self, step: u64, computed: &Computed) -> Result<f64> {
        let learning_rate = self.optimizer.apply(step, computed.gradient_norm)?;
        if let Some(statistics) = &computed.statistics {
            model::absorb(self.model.buffers(), statistics);
        }
        self.discard()?;
        Ok(learning_rate)
    }

    /// Forgets what is held of a step.
    pub fn discard(&mut self) -> Result<()> {
        self.reduction.clear()
    }

    /// The part of the last sum that backward did not hide.
    pub fn exposed(&self) -> Duration {
        self.reduction.exposed()
    }

    /// Forward and backward pass of a micro-batch whose share in the step is `weight`: its loss, and its shares, f64.
    fn pass(&mut self, input: Input, weight: f64, last: bool) -> Result<(f64, Tensor)> {
        let started = Instant::now();
        input.arrive()?;
        let forward = self.model.loss(&input)?;
        let scaled = &forward.loss * weight;
        let forwarded = Instant::now();
        self.reduction.before_backward(last)?;
        scaled.f_backward().map_err(|error| Error::with_source(Kind::Internal, "backward pass", error))?;
        self.phases.forward += forwarded - started;
        self.phases.backward += forwarded.elapsed();
        self.computed = true;

        let loss = forward.loss.detach().to_kind(Scalar::Double).view([1]);
        let values = match forward.statistics {
            Some(statistics) => Tensor::cat(&[&loss, &statistics.to_kind(Scalar::Double)], 0),
            None => loss.shallow_clone(),
        };
        Ok((loss.double_value(&[0]), values * weight))
    }
}

/// Sets the number of threads of libtorch's kernels in this process.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}
