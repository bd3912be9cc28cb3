//! The learning rate as a pure function of the committed step: linear warm-up, then a cosine (Loshchilov and Hutter 2017).

use forebay_schemas::run::Optimizer as Settings;

/// Learning rate of the step after `step` committed ones, in a run of `steps`.
///
/// It rises linearly to the peak over the warm-up, and falls as a half cosine so that the last step has `final_share` of it.
pub fn learning_rate(settings: &Settings, step: u64, steps: u64) -> f64 {
    let Settings { learning_rate: peak, final_share, warmup_steps, .. } = *settings;
    if step < warmup_steps {
        return peak * (step + 1) as f64 / warmup_steps as f64;
    }
    let last = steps.saturating_sub(1);
    let progress = if last <= warmup_steps { 1.0 } else { ((step - warmup_steps) as f64 / (last - warmup_steps) as f64).min(1.0) };
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    peak * (final_share + (1.0 - final_share) * cosine)
}
