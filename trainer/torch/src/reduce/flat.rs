//! Gradients as one flat tensor, and back.

use forebay_c10d::set_gradients;
use tch::{Kind as Scalar, Tensor};

use super::broken;
use crate::error::Result;

/// The gradients one after the other, and then `rest`; zeros where there is none. Shape `[elements]`, f32.
pub(super) fn flatten(parameters: &[Tensor], rest: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    let gradient = |parameter: &Tensor| {
        let gradient = parameter.grad();
        if gradient.defined() {
            gradient.reshape([-1])
        } else {
            Tensor::zeros([parameter.numel() as i64], (Scalar::Float, parameter.device()))
        }
    };
    let parts: Vec<Tensor> = parameters.iter().map(gradient).chain([rest.to_kind(Scalar::Float)]).collect();
    Tensor::cat(&parts, 0)
}

/// Makes the parts of `flat` the gradients, without a copy; returns what follows them.
pub(super) fn unflatten(parameters: &[Tensor], flat: &Tensor) -> Result<Tensor> {
    let mut start = 0;
    let gradient = |parameter: &Tensor| {
        let length = parameter.numel() as i64;
        let part = flat.narrow(0, start, length).view_as(parameter);
        start += length;
        part
    };
    let gradients: Vec<Tensor> = parameters.iter().map(gradient).collect();
    set_gradients(parameters, &gradients).map_err(broken)?;
    Ok(flat.narrow(0, start, flat.numel() as i64 - start))
}
