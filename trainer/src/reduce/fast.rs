//! Reduction by c10d's Reducer: buckets are all-reduced while backward computes the earlier ones.
//!
//! The order of additions depends on the number of replicas: weights agree between world sizes to rounding, not to the bit.

use std::time::Duration;

use forebay_c10d::{ProcessGroup, Reducer};
use tch::Tensor;

use super::Reduction;
use crate::error::{Error, Kind, Result};

// Large enough to amortise a round trip, small enough that the last bucket is short: PyTorch's choice as well.
const BUCKET_BYTES: usize = 25 << 20;

/// Reduction over the members of a process group.
#[derive(Debug)]
pub struct Fast {
    // Before the group, so that it is dropped first: its hooks refer to the group.
    reducer: Reducer,
    group: ProcessGroup,
}

impl Fast {
    /// Hooks into the gradients of `parameters`; all members pass the same.
    pub fn new(group: ProcessGroup, parameters: &[Tensor]) -> Result<Self> {
        let reducer = Reducer::new(&group, parameters, BUCKET_BYTES).map_err(unavailable)?;
        Ok(Self { reducer, group })
    }
}

impl Reduction for Fast {
    fn begin(&mut self) -> Result<()> {
        self.reducer.prepare_for_forward().map_err(unavailable)
    }

    fn before_last_backward(&mut self) -> Result<()> {
        self.reducer.prepare_for_backward().map_err(unavailable)
    }

    fn finish(&mut self) -> Result<Duration> {
        self.reducer.finish().map_err(unavailable)
    }

    fn sum(&mut self, values: &Tensor) -> Result<()> {
        self.group.all_reduce_sum(std::slice::from_ref(values)).map_err(unavailable)
    }
}

/// A collective fails because a peer died, froze or was told to stop: the step is tried again in another generation.
fn unavailable(error: forebay_c10d::Error) -> Error {
    Error::with_source(Kind::Unavailable, "the replicas of this generation are no longer connected", error)
}
