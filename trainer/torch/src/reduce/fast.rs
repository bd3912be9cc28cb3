//! Reduction by c10d's Reducer: buckets are all-reduced while backward computes the earlier ones.
//!
//! Gradients of a replica's micro-batches add up in `.grad`, so what it holds is their sum. The order of additions depends on
//! the number of replicas: weights agree between world sizes to rounding, not to the bit.

use std::slice;
use std::time::Duration;

use forebay_c10d::{ProcessGroup, Reducer, clear_gradients, set_gradients};
use tch::{Kind as Scalar, Tensor};

use super::{Reduction, broken, device_of, flat, unavailable};
use crate::error::Result;

// Large enough to amortise a round trip, small enough that the last bucket is short: PyTorch's choice as well.
const BUCKET_BYTES: usize = 25 << 20;

/// See the module.
#[derive(Debug)]
pub struct Fast {
    parameters: Vec<Tensor>,
    /// Sum of the own shares, f64.
    shares: Tensor,
    connected: Option<Connected>,
    overlap: bool,
    /// The own gradients, none without a micro-batch, while `.grad` is a sum that was made without the reducer.
    own: Option<Vec<Tensor>>,
    exposed: Duration,
}

#[derive(Debug)]
struct Connected {
    // Before the group, so that it is dropped first: its hooks refer to the group.
    reducer: Reducer,
    group: ProcessGroup,
}

impl Fast {
    /// For `parameters`, which all replicas give in the same order, and `shares` values beside the gradients.
    pub fn new(parameters: Vec<Tensor>, shares: i64) -> Self {
        let shares = Tensor::zeros([shares], (Scalar::Double, device_of(&parameters)));
        Self { parameters, shares, connected: None, overlap: false, own: None, exposed: Duration::ZERO }
    }

    /// Sums flat copies: for a step of which some replicas have gradients already, and others none.
    fn sum_flat(&mut self, group: &ProcessGroup) -> Result<()> {
        let sum = flat::flatten(&self.parameters, &Tensor::zeros([0], (Scalar::Float, device_of(&self.parameters))));
        group.all_reduce_sum(slice::from_ref(&sum)).map_err(unavailable)?;
        self.own = Some(self.parameters.iter().map(Tensor::grad).filter(Tensor::defined).collect());
        flat::unflatten(&self.parameters, &sum).map(drop)
    }
}

impl Reduction for Fast {
    fn attach(&mut self, group: Option<ProcessGroup>) -> Result<()> {
        self.connected = None;
        if let Some(group) = group {
            let reducer = Reducer::new(&group, &self.parameters, BUCKET_BYTES).map_err(unavailable)?;
            self.connected = Some(Connected { reducer, group });
        }
        Ok(())
    }

    fn detach(&mut self) -> Option<ProcessGroup> {
        self.connected.take().map(|connected| connected.group)
    }

    fn begin(&mut self, overlap: bool) -> Result<bool> {
        self.overlap = overlap && self.connected.is_some();
        if let Some(connected) = self.connected.as_mut().filter(|_| overlap) {
            connected.reducer.prepare_for_forward().map_err(unavailable)?;
        }
        Ok(self.overlap)
    }

    fn before_backward(&mut self, last: bool) -> Result<()> {
        match &mut self.connected {
            Some(connected) if last && self.overlap => connected.reducer.prepare_for_backward().map_err(unavailable),
            _ => Ok(()),
        }
    }

    fn add(&mut self, _index: u32, shares: &Tensor) -> Result<()> {
        let _ = self.shares.g_add_(shares);
        Ok(())
    }

    fn sum(&mut self) -> Result<Tensor> {
        self.exposed = Duration::ZERO;
        let shares = self.shares.copy();
        let Some(mut connected) = self.connected.take() else { return Ok(shares) };
        let summed = if self.overlap {
            connected.reducer.finish().map_err(unavailable).map(|exposed| self.exposed = exposed)
        } else {
            self.sum_flat(&connected.group)
        };
        let summed = summed.and_then(|()| connected.group.all_reduce_sum(slice::from_ref(&shares)).map_err(unavailable));
        self.connected = Some(connected);
        if summed.is_err() {
            // The gradients may be summed already.
            self.take_back()?;
        }
        summed.map(|()| shares)
    }

    fn take_back(&mut self) -> Result<()> {
        match (self.own.take(), &mut self.connected) {
            (Some(own), _) if own.is_empty() => clear_gradients(&self.parameters).map_err(broken),
            (Some(own), _) => set_gradients(&self.parameters, &own).map_err(broken),
            (None, Some(connected)) if self.overlap => connected.reducer.restore().map_err(broken),
            (None, _) => Ok(()),
        }
    }

    fn clear(&mut self) -> Result<()> {
        self.own = None;
        let _ = self.shares.zero_();
        clear_gradients(&self.parameters).map_err(broken)
    }

    fn exposed(&self) -> Duration {
        self.exposed
    }
}
