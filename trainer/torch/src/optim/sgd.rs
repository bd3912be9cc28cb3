//! SGD with Nesterov momentum, as in Sutskever et al. 2013.

use forebay_schemas::run::Optimizer as Settings;
use tch::Tensor;

/// Updates one parameter in place.
pub(super) fn update(settings: &Settings, learning_rate: f64, parameter: &mut Tensor, gradient: &Tensor, momentum: &mut Tensor) {
    let _ = momentum.g_mul_scalar_(settings.beta1).g_add_(gradient);
    let ahead = (&*momentum * settings.beta1).g_add_(gradient).g_mul_scalar_(-learning_rate);
    let _ = parameter.g_add_(&ahead);
}
