use std::sync::Arc;

use forebay_c10d::{MemoryStore, ProcessGroup, Store};
use forebay_schemas::settings::layered;
use tch::Kind as Scalar;

use super::*;
use crate::reduce::{Alone, Fast};

pub(crate) const TEXT: Task = Task::Text { vocabulary: 50, length: 8 };
pub(crate) const PICTURES: Task = Task::Images { classes: 4 };

const GPT: &str = "kind='gpt'\nlayers=2\nheads=2\nwidth=32";
const RESNET: &str = "kind='resnet'\ndepth=20\nimage_size=8";
const VIT: &str = "kind='vit'\nlayers=2\nheads=2\nwidth=32\npatch=4\nimage_size=8";

pub(crate) fn run(model: &str, overrides: &[&str]) -> Run {
    // Threads of these tiny kernels would spin for each other, which takes minutes where the cores are busy.
    set_threads(1);
    let text = format!(
        "name='r'\ndataset='d'\ncheckpoints='c'\n[model]\n{model}\n[batch]\nsteps=40\nmicro_batches=4\nmicro_batch_size=3\n[optimizer]\nlearning_rate=0.01\nwarmup_steps=2\n"
    );
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let run: Run = layered("test", &text, [], &overrides).expect("settings");
    run.validate().expect("in range");
    run
}

pub(crate) fn gpt_engine() -> Engine {
    Engine::new(&run(GPT, &[]), &TEXT).expect("engine")
}

pub(crate) fn resnet_engine() -> Engine {
    Engine::new(&run(RESNET, &[]), &PICTURES).expect("engine")
}

/// Micro-batch `index` of step `step`: `samples` samples that anybody can make again.
fn micro_batch(task: &Task, step: u64, index: u64, samples: usize) -> Input {
    let mut state = step * 1_000_003 + index * 7919 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    match *task {
        Task::Text { vocabulary, length } => {
            let ids: Vec<i64> = (0..samples * (length as usize + 1)).map(|_| (next() % vocabulary as u64) as i64).collect();
            Input::tokens(&ids, vocabulary, length).expect("ids")
        }
        Task::Images { classes } => {
            let labels: Vec<i64> = (0..samples).map(|_| (next() % classes as u64) as i64).collect();
            // A class is a brightness, with noise: learnable and not constant.
            let pixels: Vec<f32> = labels
                .iter()
                .flat_map(|&label| (0..3 * 8 * 8).map(|_| label as f32 - 1.5 + (next() % 1000) as f32 / 1000.0).collect::<Vec<_>>())
                .collect();
            Input::images(&pixels, &labels, 8, classes).expect("pixels")
        }
    }
}

/// One step with the micro-batches of `owned`, reduced and applied.
fn step(engine: &mut Engine, task: &Task, step: u64, owned: &[u64], reduction: &mut dyn Reduction) -> Computed {
    let mut indices = owned.iter();
    let mut next = || Ok(micro_batch(task, step, *indices.next().expect("one more"), 3));
    let computed = engine.compute(owned.len(), &mut next, reduction).expect("computed");
    engine.apply(step, &computed).expect("applied");
    computed
}

fn flat(tensors: &[Named]) -> Vec<f64> {
    tensors
        .iter()
        .flat_map(|(_, tensor)| Vec::<f64>::try_from(tensor.detach().reshape([-1]).to_kind(Scalar::Double)).expect("values"))
        .collect()
}

fn furthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn gradients(engine: &Engine) -> Vec<f64> {
    let named: Vec<Named> = engine.parameters().iter().map(|tensor| (String::new(), tensor.grad())).collect();
    flat(&named)
}

#[test]
fn gradient_of_micro_batches_is_the_gradient_of_their_union() {
    for (model, task) in [(GPT, TEXT), (VIT, PICTURES)] {
        let mut engine = Engine::new(&run(model, &[]), &task).expect("engine");
        let mut parts = (0..4).map(|index| Ok(micro_batch(&task, 0, index, 3)));
        let computed = engine.compute(4, &mut || parts.next().expect("one more"), &mut Alone).expect("computed");
        let of_parts = gradients(&engine);
        engine.discard().expect("discarded");

        let mut whole = Engine::new(&run(model, &["batch.micro_batches=1"]), &task).expect("engine");
        let union = || {
            let parts: Vec<Input> = (0..4).map(|index| micro_batch(&task, 0, index, 3)).collect();
            let cat = |pick: &dyn Fn(&Input) -> Tensor| Tensor::cat(&parts.iter().map(pick).collect::<Vec<_>>(), 0);
            match task {
                Task::Text { .. } => Input::Tokens {
                    ids: cat(&|part| match part {
                        Input::Tokens { ids } => ids.shallow_clone(),
                        Input::Images { .. } => unreachable!(),
                    }),
                },
                Task::Images { .. } => {
                    let side = |labels: bool| {
                        move |part: &Input| match part {
                            Input::Images { pixels, labels: classes } => {
                                if labels {
                                    classes.shallow_clone()
                                } else {
                                    pixels.shallow_clone()
                                }
                            }
                            Input::Tokens { .. } => unreachable!(),
                        }
                    };
                    Input::Images { pixels: cat(&side(false)), labels: cat(&side(true)) }
                }
            }
        };
        let of_union = whole.compute(1, &mut || Ok(union()), &mut Alone).expect("computed");
        assert!((computed.loss - of_union.loss).abs() < 1e-6);
        assert!((computed.losses.iter().sum::<f64>() / 4.0 - computed.loss).abs() < 1e-9);
        assert!(furthest(&of_parts, &gradients(&whole)) < 1e-6);
    }
}

/// Trains `steps` steps on ranks that own the given micro-batches, each on a thread; returns the state of every rank.
fn train(model: &'static str, task: &Task, owned: &[Vec<u64>], steps: u64) -> Vec<Vec<f64>> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let world = owned.len();
    let ranks: Vec<_> = owned
        .iter()
        .cloned()
        .enumerate()
        .map(|(rank, owned)| {
            let (store, task) = (store.clone(), task.clone());
            std::thread::spawn(move || {
                // Adam divides a gradient of rounding errors by its own size, and a convolution before a norm that starts at zero
                // has such gradients; with momentum, what differs is rounding.
                let mut engine = Engine::new(&run(model, &["optimizer.kind=sgd"]), &task).expect("engine");
                let mut reduction: Box<dyn Reduction> = if world == 1 {
                    Box::new(Alone)
                } else {
                    let group = ProcessGroup::connect(store, "g1", rank, world, "127.0.0.1", Duration::from_secs(20)).expect("group");
                    Box::new(Fast::new(group, engine.parameters()).expect("reducer"))
                };
                for number in 0..steps {
                    step(&mut engine, &task, number, &owned, reduction.as_mut());
                }
                let mut state = engine.weights();
                state.extend(engine.optimizer_state());
                flat(&state)
            })
        })
        .collect();
    ranks.into_iter().map(|rank| rank.join().expect("rank")).collect()
}

#[test]
fn weights_do_not_depend_on_who_computed_what() {
    for (model, task) in [(GPT, TEXT), (RESNET, PICTURES), (VIT, PICTURES)] {
        let alone = train(model, &task, &[vec![0, 1, 2, 3]], 3).remove(0);
        // The last split leaves a rank without a micro-batch.
        for split in [vec![vec![0, 2], vec![1, 3]], vec![vec![0, 1, 2], vec![3]], vec![vec![0, 1, 2, 3], vec![]]] {
            for (rank, state) in train(model, &task, &split, 3).iter().enumerate() {
                let distance = furthest(&alone, state);
                assert!(distance < 1e-6, "{model}: {split:?}, rank {rank} differs by {distance}");
            }
        }
    }
}

#[test]
fn a_discarded_step_leaves_no_trace() {
    for (mut engine, task) in [(gpt_engine(), TEXT), (resnet_engine(), PICTURES)] {
        step(&mut engine, &task, 0, &[0, 1, 2, 3], &mut Alone);
        let state = |engine: &Engine| [flat(&engine.weights()), flat(&engine.optimizer_state())].concat();
        let before = state(&engine);
        engine.compute(1, &mut || Ok(micro_batch(&task, 1, 0, 3)), &mut Alone).expect("computed");
        engine.discard().expect("discarded");
        assert_eq!(state(&engine), before);
        let after_retry = step(&mut engine, &task, 1, &[0, 1, 2, 3], &mut Alone);
        assert!(after_retry.loss.is_finite());
    }
}

#[test]
fn a_failing_source_is_reported_and_the_step_can_be_tried_again() {
    let mut engine = gpt_engine();
    let mut calls = 0;
    let mut next = || {
        calls += 1;
        if calls == 2 { Err(Error::new(Kind::Unavailable, "store")) } else { Ok(micro_batch(&TEXT, 0, 0, 3)) }
    };
    assert_eq!(engine.compute(2, &mut next, &mut Alone).expect_err("fails").kind(), Kind::Unavailable);
    engine.discard().expect("discarded");
    let mut fresh = gpt_engine();
    let again = step(&mut engine, &TEXT, 0, &[0, 1, 2, 3], &mut Alone);
    let first = step(&mut fresh, &TEXT, 0, &[0, 1, 2, 3], &mut Alone);
    assert_eq!(again.losses, first.losses);
    assert_eq!(flat(&engine.weights()), flat(&fresh.weights()));
}

#[test]
fn a_loss_that_is_not_finite_is_refused_before_it_is_applied() {
    let mut engine = gpt_engine();
    let before = flat(&engine.weights());
    let _ = tch::no_grad(|| engine.parameters()[0].shallow_clone().fill_(f64::NAN));
    let error = engine.compute(1, &mut || Ok(micro_batch(&TEXT, 0, 0, 3)), &mut Alone).expect_err("diverged");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("optimizer.learning_rate"), "{error}");
    assert_eq!(flat(&engine.weights())[before.len() - 1], before[before.len() - 1]);
}

#[test]
fn models_overfit_a_tiny_set() {
    for (model, task, rate) in [(GPT, TEXT, "0.01"), (RESNET, PICTURES, "0.005"), (VIT, PICTURES, "0.003")] {
        let settings = run(model, &[&format!("optimizer.learning_rate={rate}"), "optimizer.weight_decay=0.0", "batch.steps=40"]);
        let mut engine = Engine::new(&settings, &task).expect("engine");
        let mut losses = Vec::new();
        for number in 0..40 {
            let mut indices = 0..4;
            let mut next = || Ok(micro_batch(&task, 0, indices.next().expect("one more"), 3));
            let computed = engine.compute(4, &mut next, &mut Alone).expect("computed");
            engine.apply(number, &computed).expect("applied");
            losses.push(computed.loss);
        }
        assert!(losses[39] < 0.3 * losses[0], "{model}: {} to {}", losses[0], losses[39]);
    }
}
