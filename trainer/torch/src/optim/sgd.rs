//! SGD with Nesterov momentum, as in Sutskever et al. 2013, and decoupled weight decay.

use forebay_schemas::run::Optimizer as Settings;
use tch::Tensor;

use super::broken;
use crate::error::Result;

/// Updates parameters by their gradients, with their momenta, in place.
pub(super) fn update(settings: &Settings, learning_rate: f64, weight_decay: f64, lists: [&[Tensor]; 3]) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let [parameters, gradients, momenta] = lists;
    if weight_decay > 0.0 {
        forebay_c10d::scale(parameters, 1.0 - learning_rate * weight_decay).map_err(broken)?;
    }
    for ((parameter, gradient), momentum) in parameters.iter().zip(gradients).zip(momenta) {
        let momentum = momentum.shallow_clone().g_mul_scalar_(settings.beta1).g_add_(gradient);
        let ahead = (momentum * settings.beta1).g_add_(gradient).g_mul_scalar_(-learning_rate);
        let _ = parameter.shallow_clone().g_add_(&ahead);
    }
    Ok(())
}
