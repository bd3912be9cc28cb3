use proptest::prelude::*;
use tch::Kind;

use super::*;
use crate::device::tested;

fn settings(kind: OptimizerKind) -> Settings {
    Settings { kind, learning_rate: 0.1, warmup_steps: 10, weight_decay: 0.0, clip_norm: 0.0, ..Settings::default() }
}

proptest! {
    #[test]
    fn the_schedule_stays_between_its_ends(step in 0u64..2000, steps in 1u64..1000, warmup_steps in 0u64..100, final_share in 0.0..1.0f64) {
        let settings = Settings { warmup_steps, final_share, ..settings(OptimizerKind::Adamw) };
        let rate = learning_rate(&settings, step, steps);
        prop_assert!(rate <= 0.1 * (1.0 + 1e-12), "{}", rate);
        let floor = if step < warmup_steps { 0.1 / warmup_steps as f64 } else { 0.1 * final_share };
        prop_assert!(rate >= floor * (1.0 - 1e-9), "{} below {}", rate, floor);
    }

    #[test]
    fn it_rises_then_falls(steps in 2u64..500, warmup_steps in 0u64..100) {
        let settings = Settings { warmup_steps, ..settings(OptimizerKind::Adamw) };
        let rates: Vec<f64> = (0..steps).map(|step| learning_rate(&settings, step, steps)).collect();
        for step in 1..rates.len() {
            let (before, after) = (rates[step - 1], rates[step]);
            let holds = if (step as u64) < warmup_steps { after > before } else { after <= before * (1.0 + 1e-12) };
            prop_assert!(holds, "step {}: {} after {}", step, after, before);
        }
    }
}

#[test]
fn the_last_step_has_the_final_share() {
    let settings = Settings { final_share: 0.25, ..settings(OptimizerKind::Adamw) };
    assert!((learning_rate(&settings, 99, 100) - 0.025).abs() < 1e-12);
    assert!((learning_rate(&settings, 9, 100) - 0.1).abs() < 1e-12);
    assert!((learning_rate(&settings, 10, 100) - 0.1).abs() < 1e-12);
}

/// A parameter with a gradient.
fn parameter(values: &[f64], shape: &[i64], gradient: &[f64]) -> Named {
    let tensor = Tensor::from_slice(values).to_kind(Kind::Float).view(shape).to_device(tested()).set_requires_grad(true);
    let gradient = Tensor::from_slice(gradient).to_kind(Kind::Float).view(shape).to_device(tested());
    (&tensor * gradient).sum(Kind::Float).backward();
    ("w".to_owned(), tensor)
}

fn values((_, tensor): &Named) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).reshape([-1])).expect("values")
}

fn close(found: &[f64], expected: &[f64]) {
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} and not {expected:?}");
}

#[test]
fn adamw_follows_the_paper() {
    let settings = Settings { warmup_steps: 0, final_share: 1.0, weight_decay: 0.5, ..settings(OptimizerKind::Adamw) };
    let weight = parameter(&[1.0, -2.0], &[1, 2], &[0.3, -4.0]);
    let mut optimizer = Optimizer::new(&settings, 10, std::slice::from_ref(&weight));
    let (mut expected, mut first, mut second) = ([1.0, -2.0], [0.0; 2], [0.0; 2]);
    let Settings { beta1, beta2, epsilon, .. } = settings;
    for step in 0..5u64 {
        optimizer.apply(step, optimizer.gradient_norm().expect("norm")).expect("update");
        for (i, gradient) in [0.3, -4.0].into_iter().enumerate() {
            first[i] = beta1 * first[i] + (1.0 - beta1) * gradient;
            second[i] = beta2 * second[i] + (1.0 - beta2) * gradient * gradient;
            let n = (step + 1) as i32;
            let (m, v): (f64, f64) = (first[i] / (1.0 - beta1.powi(n)), second[i] / (1.0 - beta2.powi(n)));
            expected[i] = expected[i] * (1.0 - 0.1 * 0.5) - 0.1 * m / (v.sqrt() + epsilon);
        }
        close(&values(&weight), &expected);
    }
}

#[test]
fn sgd_is_nesterov_momentum() {
    let settings = Settings { warmup_steps: 0, final_share: 1.0, ..settings(OptimizerKind::Sgd) };
    let weight = parameter(&[1.0], &[1], &[0.5]);
    let mut optimizer = Optimizer::new(&settings, 10, std::slice::from_ref(&weight));
    let (mut expected, mut momentum) = (1.0, 0.0);
    for step in 0..4 {
        optimizer.apply(step, optimizer.gradient_norm().expect("norm")).expect("update");
        momentum = 0.9 * momentum + 0.5;
        expected -= 0.1 * (0.5 + 0.9 * momentum);
        close(&values(&weight), &[expected]);
    }
}

#[test]
fn only_matrices_decay() {
    let settings = Settings { warmup_steps: 0, weight_decay: 0.5, ..settings(OptimizerKind::Sgd) };
    let (matrix, vector) = (parameter(&[2.0], &[1, 1], &[0.0]), parameter(&[2.0], &[1], &[0.0]));
    Optimizer::new(&settings, 10, &[(matrix.0.clone(), matrix.1.shallow_clone()), (vector.0.clone(), vector.1.shallow_clone())])
        .apply(0, 0.0)
        .expect("update");
    close(&values(&matrix), &[2.0 * (1.0 - 0.1 * 0.5)]);
    close(&values(&vector), &[2.0]);
}

#[test]
fn a_long_gradient_is_cut_to_the_limit_and_a_short_one_is_left() {
    for (limit, scale) in [(1.0, 0.2), (5.0, 1.0), (50.0, 1.0), (0.0, 1.0)] {
        let settings = Settings { warmup_steps: 0, beta1: 0.0, clip_norm: limit, ..settings(OptimizerKind::Sgd) };
        let (one, two) = (parameter(&[0.0], &[1], &[3.0]), parameter(&[0.0], &[1], &[4.0]));
        let named = [(one.0.clone(), one.1.shallow_clone()), (two.0.clone(), two.1.shallow_clone())];
        let mut optimizer = Optimizer::new(&settings, 10, &named);
        assert!((optimizer.gradient_norm().expect("norm") - 5.0).abs() < 1e-6);
        optimizer.apply(0, optimizer.gradient_norm().expect("norm")).expect("update");
        close(&values(&one), &[-0.1 * 3.0 * scale]);
        close(&values(&two), &[-0.1 * 4.0 * scale]);
    }
}

#[test]
fn a_restored_optimizer_goes_on_as_if_it_had_not_stopped() {
    for kind in [OptimizerKind::Adamw, OptimizerKind::Sgd] {
        let start = || parameter(&[1.0, 2.0, 3.0], &[3, 1], &[0.1, -0.2, 0.3]);
        let (straight, resumed) = (start(), start());
        let mut optimizer = Optimizer::new(&settings(kind), 50, std::slice::from_ref(&straight));
        (0..6).for_each(|step| _ = optimizer.apply(step, 0.0).expect("update"));
        let mut before = Optimizer::new(&settings(kind), 50, std::slice::from_ref(&resumed));
        (0..3).for_each(|step| _ = before.apply(step, 0.0).expect("update"));
        let mut after = Optimizer::new(&settings(kind), 50, std::slice::from_ref(&resumed));
        for ((_, mut to), (_, from)) in after.state().into_iter().zip(before.state()) {
            to.copy_(&from);
        }
        (3..6).for_each(|step| _ = after.apply(step, 0.0).expect("update"));
        assert_eq!(values(&straight), values(&resumed));
    }
}
