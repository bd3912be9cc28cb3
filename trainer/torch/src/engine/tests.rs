use std::sync::Arc;

use forebay_c10d::{MemoryStore, Patience, ProcessGroup, Store};
use forebay_loader::Numbers;
use forebay_schemas::settings::layered;
use tch::Kind as Scalar;

use super::*;
use crate::device::tested;

pub(crate) const TEXT: Task = Task::Text { vocabulary: 50, length: 8 };
pub(crate) const PICTURES: Task = Task::Images { classes: 4 };

const PATIENCE: Patience = Patience { operation: Duration::from_secs(20), silence: Duration::from_secs(20) };
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
    Engine::new(&run(GPT, &[]), &TEXT, tested()).expect("engine")
}

pub(crate) fn resnet_engine() -> Engine {
    Engine::new(&run(RESNET, &[]), &PICTURES, tested()).expect("engine")
}

/// Micro-batch `index` of step `step`: `samples` samples that anybody can make again.
fn micro_batch(task: &Task, step: u64, index: u64, samples: usize) -> Input {
    union(task, step, &[index], samples)
}

/// Micro-batches as one.
fn union(task: &Task, step: u64, indices: &[u64], samples: usize) -> Input {
    let (mut ids, mut labels, mut pixels) = (Vec::new(), Vec::new(), Vec::new());
    for index in indices {
        let mut state = step * 1_000_003 + index * 7919 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        match *task {
            Task::Text { vocabulary, length } => {
                ids.extend((0..samples * (length as usize + 1)).map(|_| (next() % vocabulary as u64) as u32));
            }
            Task::Images { classes } => {
                let own: Vec<i64> = (0..samples).map(|_| (next() % classes as u64) as i64).collect();
                // A class is a brightness, with noise: learnable and not constant.
                for &label in &own {
                    pixels.extend((0..3 * 8 * 8).map(|_| label as f32 - 1.5 + (next() % 1000) as f32 / 1000.0));
                }
                labels.extend(own);
            }
        }
    }
    let input = match *task {
        Task::Text { vocabulary, length } => Input::tokens(ids[..].into(), vocabulary, length),
        Task::Images { classes } => Input::images(Numbers::F32(pixels[..].into()), &labels, 8, classes, [[0.0; 3], [1.0; 3]]),
    };
    input.expect("samples").send(tested()).expect("sent")
}

/// Computes and sums the micro-batches of `owned`; the losses of these, and the step.
fn compute(engine: &mut Engine, task: &Task, step: u64, owned: &[u64]) -> Result<(Vec<f64>, Computed)> {
    engine.begin(false)?;
    let losses = hold(engine, task, step, owned, true)?;
    Ok((losses, engine.reduce()?))
}

/// Computes micro-batches, of which the last one reduces if it is `last`.
fn hold(engine: &mut Engine, task: &Task, step: u64, owned: &[u64], last: bool) -> Result<Vec<f64>> {
    let one = |(position, &index): (usize, &u64)| {
        let last = last && position + 1 == owned.len();
        engine.compute(index as u32, micro_batch(task, step, index, 3), last, Duration::ZERO)
    };
    owned.iter().enumerate().map(one).collect()
}

/// One step with the micro-batches of `owned`, reduced and applied.
fn step(engine: &mut Engine, task: &Task, step: u64, owned: &[u64]) -> Vec<f64> {
    let (losses, computed) = compute(engine, task, step, owned).expect("computed");
    engine.apply(step, &computed).expect("applied");
    losses
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
        let mut engine = Engine::new(&run(model, &[]), &task, tested()).expect("engine");
        let (losses, computed) = compute(&mut engine, &task, 0, &[0, 1, 2, 3]).expect("computed");
        let of_parts = gradients(&engine);
        engine.discard().expect("discarded");

        let mut whole = Engine::new(&run(model, &["batch.micro_batches=1"]), &task, tested()).expect("engine");
        whole.begin(false).expect("begun");
        whole.compute(0, union(&task, 0, &[0, 1, 2, 3], 3), true, Duration::ZERO).expect("computed");
        let of_union = whole.reduce().expect("summed");
        assert!((computed.loss - of_union.loss).abs() < 1e-6);
        assert!((losses.iter().sum::<f64>() / 4.0 - computed.loss).abs() < 1e-9);
        assert!(furthest(&of_parts, &gradients(&whole)) < 1e-6);
    }
}

/// Trains `steps` steps on ranks that own the given micro-batches, each on a thread; returns the state of every rank.
fn train(model: &'static str, task: &Task, settings: &'static [&'static str], owned: &[Vec<u64>], steps: u64) -> Vec<Vec<f64>> {
    on_ranks(owned.len(), |rank, group| {
        let (task, owned) = (task.clone(), owned[rank].clone());
        move || {
            let mut engine = Engine::new(&run(model, settings), &task, tested()).expect("engine");
            engine.attach(group()).expect("attached");
            (0..steps).for_each(|number| drop(step(&mut engine, &task, number, &owned)));
            state(&engine)
        }
    })
}

/// Runs a closure a rank, each on a thread; it gets a way to connect its group.
fn on_ranks<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
    world: usize,
    make: impl Fn(usize, Box<dyn Fn() -> Option<ProcessGroup> + Send>) -> F,
) -> Vec<T> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let ranks: Vec<_> = (0..world)
        .map(|rank| {
            let store = store.clone();
            let connect = move || {
                let connect = || ProcessGroup::connect(store.clone(), "g1", rank, world, "127.0.0.1", PATIENCE);
                (world > 1).then(|| connect().expect("group"))
            };
            std::thread::spawn(make(rank, Box::new(connect)))
        })
        .collect();
    ranks.into_iter().map(|rank| rank.join().expect("rank")).collect()
}

fn state(engine: &Engine) -> Vec<f64> {
    flat(&engine.state())
}

// Adam divides a gradient of rounding errors by its own size, and a convolution before a norm that starts at zero has such
// gradients; with momentum, what differs is rounding.
const SGD: &[&str] = &["optimizer.kind=sgd"];
const STRICT: &[&str] = &["reduce=strict", "elastic.threads=1"];

#[test]
fn weights_do_not_depend_on_who_computed_what() {
    for (model, task) in [(GPT, TEXT), (RESNET, PICTURES), (VIT, PICTURES)] {
        let alone = train(model, &task, SGD, &[vec![0, 1, 2, 3]], 3).remove(0);
        // The last split leaves a rank without a micro-batch.
        for split in [vec![vec![0, 2], vec![1, 3]], vec![vec![0, 1, 2], vec![3]], vec![vec![0, 1, 2, 3], vec![]]] {
            for (rank, state) in train(model, &task, SGD, &split, 3).iter().enumerate() {
                let distance = furthest(&alone, state);
                assert!(distance < 1e-6, "{model}: {split:?}, rank {rank} differs by {distance}");
            }
        }
    }
}

#[test]
fn strictly_reduced_weights_and_statistics_are_the_same_to_the_bit() {
    for (model, task) in [(GPT, TEXT), (RESNET, PICTURES), (VIT, PICTURES)] {
        let alone = train(model, &task, STRICT, &[vec![0, 1, 2, 3]], 3).remove(0);
        let splits = [
            vec![vec![3, 1, 2, 0]],
            vec![vec![0, 1], vec![2, 3]],
            vec![vec![3, 0], vec![1, 2]],
            vec![vec![1, 2, 3], vec![], vec![0]],
            vec![vec![0], vec![1], vec![2], vec![3]],
        ];
        for split in splits {
            for (rank, state) in train(model, &task, STRICT, &split, 3).iter().enumerate() {
                assert_eq!(furthest(&alone, state), 0.0, "{model}: {split:?}, rank {rank}");
            }
        }
    }
}

#[test]
fn what_survivors_computed_counts_when_a_peer_dies_in_the_sum() {
    for (model, task) in [(GPT, TEXT), (RESNET, PICTURES)] {
        for (settings, tolerance) in [(SGD, 1e-6), (STRICT, 0.0)] {
            let undisturbed = train(model, &task, settings, &[vec![0, 1, 2, 3]], 3).remove(0);
            let later: Arc<dyn Store> = Arc::new(MemoryStore::default());
            let ended = on_ranks(3, |rank, group| {
                let (task, told, later) = (task.clone(), later.clone(), later.clone());
                let again = move |name| ProcessGroup::connect(later.clone(), name, rank, 2, "127.0.0.1", PATIENCE).ok();
                let owned = [vec![0], vec![1, 3], vec![2]][rank].clone();
                move || {
                    let mut engine = Engine::new(&run(model, settings), &task, tested()).expect("engine");
                    engine.attach(group()).expect("attached");
                    step(&mut engine, &task, 0, &owned);
                    engine.begin(false).expect("begun");
                    if rank == 2 {
                        // It dies when the others are in the sum.
                        ["0", "1"].into_iter().for_each(|other| told.wait(other, Duration::from_secs(20)).expect("told"));
                        return Vec::new();
                    }
                    hold(&mut engine, &task, 1, &owned, true).expect("held");
                    told.set(&rank.to_string(), b"").expect("told");
                    assert_eq!(engine.reduce().expect_err("a peer is gone").kind(), Kind::Unavailable);
                    engine.detach().expect("detached");

                    // Only what the dead one had is computed; a sum that is not committed is made again, without computing.
                    for (name, missing) in [("g2", [&[2][..], &[]][rank]), ("g3", &[])] {
                        engine.attach(again(name)).expect("attached");
                        engine.begin(true).expect("begun");
                        hold(&mut engine, &task, 1, missing, true).expect("held");
                        let computed = engine.reduce().expect("summed");
                        if name == "g3" {
                            engine.apply(1, &computed).expect("applied");
                            step(&mut engine, &task, 2, [&[0, 1][..], &[2, 3]][rank]);
                        }
                        engine.detach().expect("detached");
                    }
                    state(&engine)
                }
            });
            for (rank, state) in ended[..2].iter().enumerate() {
                let distance = furthest(&undisturbed, state);
                assert!(distance <= tolerance, "{model}: rank {rank} differs by {distance}");
            }
        }
    }
}

#[test]
fn a_discarded_step_leaves_no_trace() {
    for (mut engine, task) in [(gpt_engine(), TEXT), (resnet_engine(), PICTURES)] {
        step(&mut engine, &task, 0, &[0, 1, 2, 3]);
        let before = state(&engine);
        let (first, _) = compute(&mut engine, &task, 1, &[0, 1, 2, 3]).expect("computed");
        engine.discard().expect("discarded");
        assert_eq!(state(&engine), before);
        assert_eq!(step(&mut engine, &task, 1, &[0, 1, 2, 3]), first);
    }
}

#[test]
fn a_loss_that_is_not_finite_is_refused_before_it_is_applied() {
    let mut engine = gpt_engine();
    let before = flat(&engine.weights());
    let _ = tch::no_grad(|| engine.parameters()[0].shallow_clone().fill_(f64::NAN));
    let error = compute(&mut engine, &TEXT, 0, &[0]).expect_err("diverged");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("optimizer.learning_rate"), "{error}");
    assert_eq!(flat(&engine.weights())[before.len() - 1], before[before.len() - 1]);
}

#[test]
fn models_overfit_a_tiny_set() {
    for (model, task, rate) in [(GPT, TEXT, "0.01"), (RESNET, PICTURES, "0.005"), (VIT, PICTURES, "0.003")] {
        let settings = run(model, &[&format!("optimizer.learning_rate={rate}"), "optimizer.weight_decay=0.0", "batch.steps=40"]);
        let mut engine = Engine::new(&settings, &task, tested()).expect("engine");
        let mut losses = Vec::new();
        for number in 0..40 {
            // Of step 0 always.
            let (_, computed) = compute(&mut engine, &task, 0, &[0, 1, 2, 3]).expect("computed");
            engine.apply(number, &computed).expect("applied");
            losses.push(computed.loss);
        }
        assert!(losses[39] < 0.3 * losses[0], "{model}: {} to {}", losses[0], losses[39]);
    }
}
