//! Updates of all parameters in one call: libtorch's kernels over lists of tensors, which tch does not bind.
//!
//! On a GPU each is a launch or a few, whatever the number of tensors.

use tch::Tensor;

use crate::error::{Error, Result};
use crate::ffi::{self, outcome, pointers};

/// Settings of an [`adamw`] update.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adamw {
    /// Updates with this one, from 1.
    pub steps: f64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Weights are first scaled by 1 − learning rate × this.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// Euclidean norm over all elements of all tensors; not finite if one of them is not. Waits for the device.
pub fn norm(tensors: &[Tensor]) -> Result<f64> {
    let (raw, mut norm) = (pointers(tensors), 0.0);
    // SAFETY: the tensors are borrowed until the call returns.
    outcome("norm", unsafe { ffi::forebay_c10d_norm(raw.as_ptr(), raw.len(), &raw mut norm) })?;
    Ok(norm)
}

/// Multiplies all tensors by `factor`, in place.
pub fn scale(tensors: &[Tensor], factor: f64) -> Result<()> {
    let raw = pointers(tensors);
    // SAFETY: as above.
    outcome("scale", unsafe { ffi::forebay_c10d_scale(raw.as_ptr(), raw.len(), factor) })
}

/// One update of AdamW (Loshchilov and Hutter 2019, algorithm 2), in place: `parameters[i]` by `gradients[i]`, with its moments
/// `first[i]` and `second[i]`, which have its shape.
pub fn adamw(parameters: &[Tensor], gradients: &[Tensor], first: &[Tensor], second: &[Tensor], settings: &Adamw) -> Result<()> {
    let count = parameters.len();
    if [gradients.len(), first.len(), second.len()] != [count; 3] {
        let found = format!("{} gradients, {} and {} moments", gradients.len(), first.len(), second.len());
        return Err(Error::new("adamw", format!("{found}, expected {count} as there are parameters")));
    }
    let lists = [parameters, gradients, first, second].map(pointers);
    let [of, by, m, v] = lists.each_ref().map(Vec::as_ptr);
    // SAFETY: as above; the lists have the same length, which was just checked.
    outcome("adamw", unsafe { ffi::forebay_c10d_adamw(of, by, m, v, count, settings) })
}
