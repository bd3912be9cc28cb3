//! Groups of real processes: they reduce, one of them is killed or frozen, the others go on.
//!
//! The test binary starts itself again for every rank; [`rank_process`] is what such a process runs. Ranks tell the test
//! what they saw by keys in the shared folder, and the test waits for these keys.

#![expect(clippy::unwrap_used, reason = "a panic here is a failing test with a place")]

mod store;

use std::process::{Child, Command};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, slice, thread};

use forebay_c10d::{MemoryStore, Patience, ProcessGroup, Reducer, Store, clear_gradients, self_test};
use tch::{Device, Kind, Tensor};

use crate::store::FolderStore;

const TIMEOUT: Duration = Duration::from_secs(30);
const PATIENCE: Patience = Patience { operation: TIMEOUT, silence: TIMEOUT };
const HOST: &str = "127.0.0.1";

/// One group at a time: their tests measure time.
static TURN: Mutex<()> = Mutex::new(());

/// The ranks of one test, killed when it ends however it ends.
struct Ranks {
    folder: tempfile::TempDir,
    children: Vec<Child>,
    _turn: MutexGuard<'static, ()>,
}

impl Ranks {
    fn start(scenario: &str, world: usize) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let children = (0..world)
            .map(|rank| {
                Command::new(env::current_exe().unwrap())
                    .args(["--ignored", "--exact", "--nocapture", "rank_process"])
                    .env("C10D_SCENARIO", scenario)
                    .env("C10D_FOLDER", folder.path())
                    .env("C10D_RANK", rank.to_string())
                    .env("C10D_WORLD", world.to_string())
                    .env("OMP_NUM_THREADS", "1")
                    .spawn()
                    .unwrap()
            })
            .collect();
        Self { folder, children, _turn: turn }
    }

    fn store(&self) -> FolderStore {
        FolderStore(self.folder.path().to_owned())
    }

    fn read(&self, key: &str) -> String {
        let path = self.store().path(key);
        let began = Instant::now();
        while !path.exists() {
            assert!(began.elapsed() < TIMEOUT, "{key}: not told within {TIMEOUT:?}");
            thread::sleep(Duration::from_millis(1));
        }
        String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
    }

    fn signal(&self, rank: usize, signal: &str) {
        let status = Command::new("kill").args([signal, &self.children[rank].id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn join(mut self, ranks: &[usize]) {
        for &rank in ranks {
            assert!(self.children[rank].wait().unwrap().success(), "rank {rank}");
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[ignore = "what the processes of the other tests run"]
fn rank_process() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the other tests"));
    let number = |name: &str| variable(name).parse::<usize>().unwrap();
    let store = Arc::new(FolderStore(variable("C10D_FOLDER").into()));
    let (rank, world) = (number("C10D_RANK"), number("C10D_WORLD"));
    match variable("C10D_SCENARIO").as_str() {
        "reduce" => reduce_until_told(&store, rank, world, 1000),
        // More than the system takes over at once.
        "large" => reduce_until_told(&store, rank, world, 16 << 20),
        "train" => train(&store, rank, world),
        "half" => connect_without_the_last(&store, rank, world),
        "late" => connect_late(&store, rank, world),
        other => panic!("scenario {other}"),
    }
}

/// Reduces until that fails, says so, and goes on with the ranks that the test names.
fn reduce_until_told(store: &Arc<FolderStore>, rank: usize, world: usize, elements: i64) {
    let group = ProcessGroup::connect(store.clone(), "first", rank, world, HOST, PATIENCE).unwrap();
    let handle = group.abort_handle();
    let watcher = {
        let store = store.clone();
        thread::spawn(move || {
            store.get("abort").unwrap();
            let at = Instant::now();
            handle.abort("told to");
            at
        })
    };
    let mut sums = 0;
    let error = loop {
        match sum_of(&group, rank + 1, elements) {
            Ok(sum) => assert_eq!(sum, (world * (world + 1) / 2) as f64),
            Err(error) => break error,
        }
        sums += 1;
        store.set(&format!("sums-{rank}"), b"").unwrap();
    };
    assert!(sums > 0);
    store.set(&format!("failed-{rank}"), error.to_string().as_bytes()).unwrap();
    if store.check("abort").unwrap() {
        store.set(&format!("waited-{rank}"), watcher.join().unwrap().elapsed().as_millis().to_string().as_bytes()).unwrap();
    }
    drop(group.leave());
    let survivors: Vec<usize> = numbers(&store.get("survivors").unwrap());
    let place = survivors.iter().position(|&survivor| survivor == rank).unwrap();
    let again = ProcessGroup::connect(store.clone(), "second", place, survivors.len(), HOST, PATIENCE).unwrap();
    let sum = sum_of(&again, rank + 1, elements).unwrap();
    store.set(&format!("sum-{rank}"), sum.to_string().as_bytes()).unwrap();
    leave_together(store, &survivors, rank);
}

/// Nobody closes its sockets while another one still reads.
fn leave_together(store: &FolderStore, ranks: &[usize], rank: usize) {
    store.set(&format!("leaving-{rank}"), b"").unwrap();
    ranks.iter().for_each(|other| store.wait(&format!("leaving-{other}"), TIMEOUT).unwrap());
}

fn numbers(bytes: &[u8]) -> Vec<usize> {
    String::from_utf8_lossy(bytes).split(' ').map(|number| number.parse().unwrap()).collect()
}

fn sum_of(group: &ProcessGroup, value: usize, elements: i64) -> forebay_c10d::Result<f64> {
    let tensor = Tensor::full([elements], value as f64, (Kind::Float, Device::Cpu));
    group.all_reduce_sum(slice::from_ref(&tensor))?;
    Ok(tensor.double_value(&[elements - 1]))
}

/// Two layers, four micro-batches dealt to the ranks; the weights must be those of one process.
fn train(store: &Arc<FolderStore>, rank: usize, world: usize) {
    let group = ProcessGroup::connect(store.clone(), "train", rank, world, HOST, PATIENCE).unwrap();
    let weights = train_steps(&group, 5);
    store.set(&format!("weights-{rank}"), format!("{weights:?}").as_bytes()).unwrap();
    leave_together(store, &(0..world).collect::<Vec<_>>(), rank);
}

fn train_steps(group: &ProcessGroup, steps: i64) -> Vec<f64> {
    const MICRO_BATCHES: usize = 4;
    let first = (Tensor::arange(64 * 64, (Kind::Double, Device::Cpu)).sin().reshape([64, 64]) * 0.1).set_requires_grad(true);
    let second = (Tensor::arange(64, (Kind::Double, Device::Cpu)).cos().reshape([64, 1]) * 0.1).set_requires_grad(true);
    let parameters = [first, second];
    let mut reducer = Reducer::new(group, &parameters, 8 << 10).unwrap();
    for step in 0..steps {
        reducer.prepare_for_forward().unwrap();
        let mine: Vec<usize> = (0..MICRO_BATCHES).filter(|batch| batch % group.world() == group.rank()).collect();
        for (index, &batch) in mine.iter().enumerate() {
            let input = (Tensor::arange(8 * 64, (Kind::Double, Device::Cpu)) + (step * 7 + batch as i64 * 3) as f64).sin().reshape([8, 64]);
            let output = input.matmul(&parameters[0]).tanh().matmul(&parameters[1]);
            let loss = (output - 1.0).square().mean(Kind::Double) / MICRO_BATCHES as f64;
            if index + 1 == mine.len() {
                reducer.prepare_for_backward().unwrap();
            }
            loss.backward();
        }
        reducer.finish().unwrap();
        tch::no_grad(|| {
            for parameter in &parameters {
                let mut parameter = parameter.shallow_clone();
                let update = parameter.grad() * 0.1;
                parameter -= update;
            }
        });
        clear_gradients(&parameters).unwrap();
    }
    parameters.iter().map(|parameter| parameter.square().sum(Kind::Double).double_value(&[])).collect()
}

/// The last rank dies without connecting; the others must give up when they are told, not at the timeout.
fn connect_without_the_last(store: &Arc<FolderStore>, rank: usize, world: usize) {
    if rank + 1 == world {
        return;
    }
    store.set(&format!("connecting-{rank}"), b"").unwrap();
    let error = ProcessGroup::connect(store.clone(), "half", rank, world, HOST, PATIENCE).unwrap_err();
    store.set(&format!("failed-{rank}"), error.to_string().as_bytes()).unwrap();
}

/// The last rank begins when it is told to; what becomes of the connection is told.
fn connect_late(store: &Arc<FolderStore>, rank: usize, world: usize) {
    if rank + 1 == world {
        store.get("begin").unwrap();
    }
    let connected = ProcessGroup::connect(store.clone(), "late", rank, world, HOST, PATIENCE);
    // Who had reached the dead one while it lived is connected, and learns of it from the first reduction.
    let error = connected.and_then(|group| sum_of(&group, 0, 1000)).unwrap_err();
    store.set(&format!("failed-{rank}"), error.to_string().as_bytes()).unwrap();
}

#[test]
fn the_self_test_passes() {
    self_test().unwrap();
}

#[test]
fn a_world_of_one_reduces_to_itself_and_ignores_a_late_abort() {
    let group = ProcessGroup::connect(Arc::new(MemoryStore::default()), "one", 0, 1, HOST, PATIENCE).unwrap();
    assert_eq!(sum_of(&group, 5, 1000).unwrap(), 5.0);
    let handle = group.abort_handle();
    handle.abort("first");
    handle.abort("second");
    assert!(sum_of(&group, 5, 1000).unwrap_err().to_string().contains("first"));
    drop(group);
    handle.abort("after the group was dropped");
}

#[test]
fn groups_of_one_process_start_operations_at_the_same_time() {
    const THREADS: usize = 4;
    for round in 0..2 {
        let barrier = Arc::new(Barrier::new(THREADS));
        let sums = |thread| {
            let connect = move |number| {
                let prefix = format!("{round}-{thread}-{number}");
                ProcessGroup::connect(Arc::new(MemoryStore::default()), &prefix, 0, 1, HOST, PATIENCE).unwrap()
            };
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                let groups: Vec<_> = (0..50).map(connect).collect();
                barrier.wait();
                groups.iter().for_each(|group| assert_eq!(sum_of(group, 5, 1).unwrap(), 5.0));
            })
        };
        let threads: Vec<_> = (0..THREADS).map(sums).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn wrong_ranks_and_tensors_are_refused_before_libtorch_sees_them() {
    let error = ProcessGroup::connect(Arc::new(MemoryStore::default()), "x", 1, 1, HOST, PATIENCE).unwrap_err().to_string();
    assert!(error.contains("rank 1 of 1"), "{error}");
    let group = ProcessGroup::connect(Arc::new(MemoryStore::default()), "y", 0, 1, HOST, PATIENCE).unwrap();
    let scattered = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu)).transpose(0, 1);
    assert!(group.all_reduce_sum(&[scattered]).unwrap_err().to_string().contains("contiguous"));
    assert!(group.broadcast(&[], 1).unwrap_err().to_string().contains("root"));
    // A refused call does not spoil the group.
    assert_eq!(sum_of(&group, 2, 1000).unwrap(), 2.0);
}

#[test]
fn an_unknown_host_is_an_error_that_names_it() {
    let error = ProcessGroup::connect(Arc::new(MemoryStore::default()), "z", 0, 1, "no.such.host.invalid", PATIENCE).unwrap_err();
    assert!(error.to_string().contains("no.such.host.invalid"), "{error}");
}

#[test]
fn survivors_of_a_kill_fail_within_a_second_and_go_on_without_it() {
    let ranks = Ranks::start("reduce", 3);
    (0..3).for_each(|rank| drop(ranks.read(&format!("sums-{rank}"))));
    ranks.signal(1, "-KILL");
    let killed = Instant::now();
    ranks.read("failed-0");
    ranks.read("failed-2");
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    ranks.store().set("survivors", b"0 2").unwrap();
    assert_eq!((ranks.read("sum-0"), ranks.read("sum-2")), ("4".to_owned(), "4".to_owned()));
    ranks.join(&[0, 2]);
}

/// Ranks of which the last was frozen so long ago that all others are surely inside the reduction that never ends; nothing announces
/// that.
fn reducing_beside_a_frozen_one(scenario: &str, world: usize, pause: Duration) -> Ranks {
    let ranks = Ranks::start(scenario, world);
    (0..world).for_each(|rank| drop(ranks.read(&format!("sums-{rank}"))));
    ranks.signal(world - 1, "-STOP");
    thread::sleep(pause);
    ranks
}

#[test]
fn an_abort_frees_those_who_are_in_the_middle_of_a_transfer() {
    let ranks = reducing_beside_a_frozen_one("large", 2, Duration::from_millis(500));
    ranks.store().set("abort", b"").unwrap();
    drop(ranks.read("failed-0"));
    let waited: u64 = ranks.read("waited-0").parse().unwrap();
    assert!(waited < 3000, "freed after {waited} ms");
    ranks.store().set("survivors", b"0").unwrap();
    assert_eq!(ranks.read("sum-0"), "1");
}

#[test]
fn an_abort_frees_those_who_wait_for_a_frozen_peer() {
    let ranks = reducing_beside_a_frozen_one("reduce", 3, Duration::from_millis(200));
    assert!(!ranks.store().check("failed-0").unwrap(), "a frozen peer is not an error by itself");
    ranks.store().set("abort", b"").unwrap();
    for rank in [0, 1] {
        let error = ranks.read(&format!("failed-{rank}"));
        assert!(error.contains("told to") || error.contains("reset") || error.contains("closed"), "{error}");
        let waited: u64 = ranks.read(&format!("waited-{rank}")).parse().unwrap();
        assert!(waited < 100, "rank {rank} waited {waited} ms after the abort");
    }
    ranks.store().set("survivors", b"0 1").unwrap();
    assert_eq!((ranks.read("sum-0"), ranks.read("sum-1")), ("3".to_owned(), "3".to_owned()));
    ranks.signal(2, "-KILL");
}

#[test]
fn a_rendezvous_whose_peer_never_comes_ends_when_it_is_cancelled() {
    let ranks = Ranks::start("half", 3);
    ranks.read("connecting-0");
    ranks.read("connecting-1");
    let cancelled = Instant::now();
    ranks.store().set("cancel", b"").unwrap();
    for rank in [0, 1] {
        let error = ranks.read(&format!("failed-{rank}"));
        assert!(cancelled.elapsed() < Duration::from_secs(1), "{:?}", cancelled.elapsed());
        assert!(error.contains("a peer is gone"), "{error}");
    }
    ranks.join(&[0, 1]);
}

/// The members ask the store nothing any more: they try to reach the dead one by the address that it gave.
#[test]
fn a_rendezvous_whose_peer_died_after_it_gave_its_address_ends_when_it_is_cancelled() {
    let ranks = Ranks::start("late", 4);
    ranks.read("late/0/2");
    ranks.signal(2, "-KILL");
    ranks.store().set("begin", b"").unwrap();
    ranks.read("late/0/3");
    // Until all are surely connecting; nothing announces that.
    thread::sleep(Duration::from_millis(200));
    let cancelled = Instant::now();
    ranks.store().set("cancel", b"").unwrap();
    for rank in [0, 1, 3] {
        ranks.read(&format!("failed-{rank}"));
        assert!(cancelled.elapsed() < TIMEOUT / 6, "rank {rank}: {:?}", cancelled.elapsed());
    }
    ranks.join(&[0, 1, 3]);
}

#[test]
fn the_gradient_does_not_depend_on_the_world_size() {
    let alone = ProcessGroup::connect(Arc::new(MemoryStore::default()), "alone", 0, 1, HOST, PATIENCE).unwrap();
    let expected = train_steps(&alone, 5);
    assert!(expected.iter().all(|norm| norm.is_finite()));
    for world in [2, 3] {
        let ranks = Ranks::start("train", world);
        let found: Vec<String> = (0..world).map(|rank| ranks.read(&format!("weights-{rank}"))).collect();
        assert!(found.iter().all(|weights| *weights == found[0]), "ranks of a world of {world} differ: {found:?}");
        let norms: Vec<f64> = found[0].trim_matches(['[', ']']).split(", ").map(|number| number.parse().unwrap()).collect();
        for (one, many) in expected.iter().zip(&norms) {
            assert!((one - many).abs() < 1e-9 * one, "world of 1: {expected:?}, of {world}: {norms:?}");
        }
        ranks.join(&(0..world).collect::<Vec<_>>());
    }
}
