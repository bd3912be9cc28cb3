//! AdamW, Loshchilov and Hutter 2019, algorithm 2: libtorch's fused kernel.

use forebay_c10d::Adamw;
use forebay_schemas::run::Optimizer as Settings;
use tch::Tensor;

use super::broken;
use crate::error::Result;

/// Updates parameters by their gradients, with their first and second moments, in place; `step` steps were applied before.
pub(super) fn update(settings: &Settings, learning_rate: f64, weight_decay: f64, step: u64, lists: [&[Tensor]; 4]) -> Result<()> {
    let Settings { beta1, beta2, epsilon, .. } = *settings;
    let [parameters, gradients, first, second] = lists;
    let settings = Adamw { steps: (step + 1) as f64, learning_rate, beta1, beta2, weight_decay, epsilon };
    forebay_c10d::adamw(parameters, gradients, first, second, &settings).map_err(broken)
}
