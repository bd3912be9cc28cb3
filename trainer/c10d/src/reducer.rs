//! c10d's Reducer: gradients are summed over the group in buckets, while backward still computes the earlier ones.
//!
//! Promises: it sums and does not average, because the loss is scaled before backward, so that the gradient does not
//! depend on the world size; gradients are views of the buckets, so nothing is copied back.
//! After a failure the gradients are what this process had computed, so nothing of it is lost.
//! Deliberately absent: recovery. A reducer fails once: make a new one over the new group.

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::ffi::{self, outcome, pointers};
use crate::group::ProcessGroup;

/// The first bucket is small so that communication starts early.
const FIRST_BUCKET_BYTES: usize = 1 << 20;

/// Reduces the gradients of a list of parameters.
///
/// A step: [`Self::prepare_for_forward`] once; forward and backward of every micro-batch, with
/// [`Self::prepare_for_backward`] right before the backward of the last one only (gradients of the others accumulate
/// locally); then [`Self::finish`]. Every rank must do so, and every parameter must get a gradient.
#[derive(Debug)]
pub struct Reducer {
    raw: *mut c_void,
}

impl Reducer {
    /// Hooks into the gradients of `parameters`, which all ranks pass in the same order with the same shapes.
    pub fn new(group: &ProcessGroup, parameters: &[Tensor], bucket_bytes: usize) -> Result<Self> {
        let too_large = |_| Error::new("reducer", format!("buckets of {bucket_bytes} bytes do not fit 63 bits"));
        let bucket = i64::try_from(bucket_bytes).map_err(too_large)?;
        let first = i64::try_from(bucket_bytes.min(FIRST_BUCKET_BYTES)).map_err(too_large)?;
        let parameters = pointers(parameters);
        let mut raw = ptr::null_mut();
        // SAFETY: the group is alive, and the reducer takes references of its own to it and to the parameters.
        let message =
            unsafe { ffi::forebay_c10d_reducer_new(group.as_ptr(), parameters.as_ptr(), parameters.len(), first, bucket, &raw mut raw) };
        outcome("reducer", message)?;
        Ok(Self { raw })
    }

    /// Begins a step, before the first forward, while no gradient is set. After the first step it talks to the peers
    /// once, to agree on the order of the buckets.
    pub fn prepare_for_forward(&mut self) -> Result<()> {
        // SAFETY: the reducer is alive and borrowed for this call alone.
        outcome("reducer before forward", unsafe { ffi::forebay_c10d_reducer_prepare_for_forward(self.raw) })
    }

    /// The next backward reduces.
    pub fn prepare_for_backward(&mut self) -> Result<()> {
        // SAFETY: as above.
        outcome("reducer before backward", unsafe { ffi::forebay_c10d_reducer_prepare_for_backward(self.raw) })
    }

    /// Ends a step after its last backward: an error if a parameter got no gradient. Returns the time for which
    /// communication was not hidden: from the last bucket handed over to the last one done. On failure the gradients are
    /// what this process had computed.
    pub fn finish(&mut self) -> Result<Duration> {
        let mut exposed_seconds = 0.0;
        // SAFETY: as above.
        outcome("reducer after backward", unsafe { ffi::forebay_c10d_reducer_finish(self.raw, &raw mut exposed_seconds) })?;
        Ok(Duration::try_from_secs_f64(exposed_seconds).unwrap_or_default())
    }

    /// Takes the sum back: the gradients are what this process had computed, if [`Self::finish`] was the last call.
    pub fn restore(&mut self) -> Result<()> {
        // SAFETY: as above.
        outcome("reducer taken back", unsafe { ffi::forebay_c10d_reducer_restore(self.raw) })
    }
}

// SAFETY: nothing in it is bound to the thread that made it; `&mut self` keeps its use to one thread at a time.
unsafe impl Send for Reducer {}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once. It takes its hooks off the parameters; an error leaves nothing to be done.
        let _ = outcome("reducer", unsafe { ffi::forebay_c10d_reducer_free(self.raw) });
    }
}

/// Makes `gradients` those of `parameters`, of the same shapes and in the same order; they share memory afterwards.
pub fn set_gradients(parameters: &[Tensor], gradients: &[Tensor]) -> Result<()> {
    let shapes = |tensors: &[Tensor]| tensors.iter().map(Tensor::size).collect::<Vec<_>>();
    if shapes(parameters) != shapes(gradients) {
        return Err(Error::new("set gradients", format!("found shapes {:?}, expected {:?}", shapes(gradients), shapes(parameters))));
    }
    let (raw, values) = (pointers(parameters), pointers(gradients));
    // SAFETY: the tensors are borrowed for the call, and there are as many of the one as of the other.
    outcome("set gradients", unsafe { ffi::forebay_c10d_set_gradients(raw.as_ptr(), values.as_ptr(), raw.len()) })
}

/// Unsets the gradients of `parameters`. An optimizer's `zero_grad` cannot: it detaches, which views of a bucket refuse.
pub fn clear_gradients(parameters: &[Tensor]) -> Result<()> {
    let raw = pointers(parameters);
    // SAFETY: the tensors are borrowed for the call.
    outcome("clear gradients", unsafe { ffi::forebay_c10d_clear_gradients(raw.as_ptr(), raw.len()) })
}
