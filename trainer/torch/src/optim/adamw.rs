//! AdamW, Loshchilov and Hutter 2019, algorithm 2 (Kingma and Ba 2015 without the decay, which the caller has done).

use forebay_schemas::run::Optimizer as Settings;
use tch::Tensor;

/// Updates one parameter in place; `step` steps were applied before.
pub(super) fn update(
    settings: &Settings,
    learning_rate: f64,
    step: u64,
    parameter: &mut Tensor,
    gradient: &Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
) {
    let Settings { beta1, beta2, epsilon, .. } = *settings;
    let steps = (step + 1) as f64;
    let (correction1, correction2) = (1.0 - beta1.powf(steps), 1.0 - beta2.powf(steps));
    let _ = first.lerp_(gradient, 1.0 - beta1);
    let _ = second.lerp_(&gradient.square(), 1.0 - beta2);
    // −rate × (m / c₁) / (√(v / c₂) + ε), with the constants moved into the denominator to save passes.
    let root2 = correction2.sqrt();
    let scale = -correction1 / (learning_rate * root2);
    let denominator = second.sqrt().g_add_scalar_(epsilon * root2).g_mul_scalar_(scale);
    let _ = parameter.addcdiv_(first, &denominator);
}
