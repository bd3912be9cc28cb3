//! Coordinator and sessions over real HTTP on this host; the replicas are threads that train nothing.
//!
//! Their all-reduce is a key each in the rendezvous, so that it blocks, and is cancelled, as the real one is.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_schemas::checkpoint::{CheckpointManifest, DatasetVersionRef};
use forebay_schemas::run::Run;
use forebay_schemas::wire::{
    Assignment, Finish, Identity, Join, Joined, Mark, MicroBatchReport, Next, PROTOCOL, Publish, Published, Ready, Timings, Verdict,
};
use forebay_schemas::{Digest, Position};
use forebay_store::Checkpoints;

use super::transport::Transport;
use super::*;
use crate::error::{Error, Kind, Result};
use crate::telemetry::{Cause, Event, Observer, What, read_events};

const TOKEN: &str = "the token of the tests";
const STEPS: u64 = 40;

fn run(name: &str) -> Run {
    let text = serde_json::json!({
        "name": name, "dataset": "memory://dataset", "checkpoints": format!("memory://{name}"),
        "model": {"kind": "gpt", "layers": 1, "heads": 1, "width": 2},
        "batch": {"steps": STEPS, "micro_batches": 4, "micro_batch_size": 2},
        "checkpoint": {"every_steps": 10, "keep": 2},
        "elastic": {"lease": "400ms", "gather": "300ms", "min_replicas": 1},
    });
    serde_json::from_value(text).unwrap()
}

fn dataset() -> DatasetVersionRef {
    DatasetVersionRef { url: "memory://dataset".to_owned(), version: 1, identity: Digest::of(b"dataset"), mixed: Vec::new() }
}

fn identity(name: &str) -> Identity {
    let (host, device) = ("127.0.0.1".to_owned(), "none".to_owned());
    Identity { name: name.to_owned(), host, pid: std::process::id(), device, door: "127.0.0.1:1".to_owned() }
}

#[derive(Default)]
struct Seen(Mutex<Vec<(Instant, Event)>>);

impl Observer for Seen {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push((Instant::now(), event.clone()));
    }
}

impl Seen {
    fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    /// Replicas that joined and coordinators that were started, but for the first.
    fn arrived(&self) -> usize {
        let arrivals = |event: &&Event| matches!(event.what, What::ReplicaJoined { .. } | What::RunStarted { .. });
        self.all().iter().filter(arrivals).count().saturating_sub(1)
    }

    fn steps(&self) -> Vec<(Instant, u64)> {
        let step = |(at, event): &(Instant, Event)| match event.what {
            What::StepCommitted { step, .. } => Some((*at, step)),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(step).collect()
    }
}

fn order() -> Digest {
    Digest::of(b"order")
}

fn join(url: &str, identity: Identity, order: Digest) -> Result<Session> {
    let mut session = Session::meet(url, TOKEN, identity)?;
    session.join(order).map(|()| session)
}

struct Rig {
    run: Run,
    checkpoints: Checkpoints,
    seen: Arc<Seen>,
    awaited: usize,
}

impl Rig {
    async fn new(name: &str) -> Self {
        let run = run(name);
        let checkpoints = Checkpoints::open(&run.checkpoints, &run.name).await.unwrap();
        Self { run, checkpoints, seen: Arc::default(), awaited: 0 }
    }

    async fn coordinator(&self, expected: usize) -> Result<Coordinator> {
        self.listening_on("127.0.0.1:0", expected).await
    }

    async fn listening_on(&self, listen: &str, expected: usize) -> Result<Coordinator> {
        let options = CoordinatorOptions {
            run: self.run.clone(),
            dataset: dataset(),
            checkpoints: self.checkpoints.clone(),
            listen: listen.parse().unwrap(),
            advertise: None,
            token: TOKEN.to_owned(),
            expected,
            observer: self.seen.clone(),
        };
        Coordinator::start(options).await
    }

    /// A replica on a thread of its own; one that dies does so in the middle of step `dies_at`, one that lives waits
    /// before step 20 until as many as `Self::awaited` have arrived.
    fn replica(&self, coordinator: &Coordinator, name: &str, dies_at: Option<u64>) -> JoinHandle<Result<Option<Instant>>> {
        let (url, name, checkpoints) = (coordinator.url(), name.to_owned(), self.checkpoints.clone());
        let runtime = tokio::runtime::Handle::current();
        let (seen, awaited) = (self.seen.clone(), self.awaited);
        std::thread::spawn(move || {
            let session = join(&url, identity(&name), order())?;
            session.follow(checkpoints.clone());
            Replica { session, checkpoints, runtime, name, dies_at, progress: Progress::default(), seen, awaited }.train()
        })
    }

    async fn manifest(&self, step: u64, generation: u64, writer: &str) -> CheckpointManifest {
        manifest(&self.run, &self.checkpoints, step, generation, writer).await
    }
}

async fn manifest(run: &Run, checkpoints: &Checkpoints, step: u64, generation: u64, writer: &str) -> CheckpointManifest {
    let stage = async |name: &str| checkpoints.stage(step, generation, writer, name, Bytes::from(format!("{name} {step}"))).await.unwrap();
    let (seed, batch) = (run.seed, &run.batch);
    CheckpointManifest {
        format: forebay_schemas::checkpoint::FORMAT,
        run: run.name.clone(),
        position: Position {
            dataset: dataset().identity,
            seed,
            step,
            micro_batches: batch.micro_batches,
            micro_batch_size: batch.micro_batch_size,
        },
        generation,
        created_unix_ms: 0,
        program: "test".to_owned(),
        dataset: dataset(),
        config_digest: run.digest(),
        config: serde_json::Value::Null,
        order: Some(order()),
        samples: step * run.global_batch(),
        loss: Some(1.0),
        weights_sha256: format!("weights {step}"),
        model: stage("model").await,
        optimizer: stage("optimizer").await,
    }
}

struct Replica {
    session: Session,
    checkpoints: Checkpoints,
    runtime: tokio::runtime::Handle,
    name: String,
    dies_at: Option<u64>,
    progress: Progress,
    seen: Arc<Seen>,
    awaited: usize,
}

impl Replica {
    /// Until the run is done (nothing), or until its death (when).
    fn train(mut self) -> Result<Option<Instant>> {
        loop {
            let place = match self.session.assignment(&self.progress) {
                Ok(Some(place)) => place,
                Ok(None) => return self.session.leave().map(|()| None),
                Err(error) if error.kind() == Kind::Fenced => {
                    self.session.rejoin()?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.progress.take(&place)?;
            self.progress.restored(&place);
            if place.checkpoint {
                self.publish(place.state)?;
            }
            if place.state.step < STEPS && self.generation(&place)? {
                return Ok(Some(Instant::now()));
            }
        }
    }

    /// Steps of one generation; true if it is to die now.
    fn generation(&mut self, place: &Assignment) -> Result<bool> {
        let keys = self.session.rendezvous(place)?;
        let mut step = place.state.step;
        loop {
            if self.dies_at == Some(step) {
                return Ok(true);
            }
            while step == 20 && self.seen.arrived() < self.awaited {
                std::thread::sleep(Duration::from_millis(1));
            }
            while let Some(&index) = self.progress.due().first() {
                let samples = Digest::of_parts([&step.to_le_bytes()[..], &index.to_le_bytes()]);
                self.progress.computed(MicroBatchReport { index, loss: Some(1.0), samples });
            }
            let reduced = keys.set(&format!("{step}/{}", place.rank), b"gradient").and_then(|()| {
                (0..place.members.len()).try_for_each(|rank| keys.wait(&format!("{step}/{rank}"), Duration::from_secs(20)).map(drop))
            });
            if let Err(error) = reduced {
                // Out or over, the next assignment says it better.
                let _ = self.session.fail(place, &error.to_string());
                return Ok(false);
            }
            let reports = self.progress.held().to_vec();
            match self.session.finish_step(place.generation, step, reports, Digest::of(b"state"), Timings::default()) {
                Ok(verdict) => match self.progress.hear(verdict) {
                    Outcome::Apply { regroup, checkpoint } => {
                        step += 1;
                        if checkpoint {
                            self.publish(self.progress.have().unwrap())?;
                        }
                        if regroup {
                            return Ok(false);
                        }
                    }
                    Outcome::Keep | Outcome::Drop => return Ok(false),
                },
                Err(error) if error.kind() == Kind::Fenced => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn publish(&self, state: Mark) -> Result<()> {
        let (run, Mark { step, generation }) = (&self.session.run().run, state);
        let manifest = self.runtime.block_on(manifest(run, &self.checkpoints, step, generation, &self.name));
        match self.session.publish(manifest) {
            Err(error) if error.kind() != Kind::Fenced => Err(error),
            _ => Ok(()),
        }
    }
}

async fn ended<T: Send + 'static>(thread: JoinHandle<T>) -> T {
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_commits_once_and_the_events_are_kept() {
    let rig = Rig::new("plain").await;
    let coordinator = rig.coordinator(2).await.unwrap();
    let replicas = [rig.replica(&coordinator, "a", None), rig.replica(&coordinator, "b", None)];
    let summary = coordinator.wait().await.unwrap();
    for replica in replicas {
        assert_eq!(ended(replica).await.unwrap(), None);
    }
    assert_eq!((summary.step, summary.samples, summary.loss), (STEPS, STEPS * 8, Some(1.0)));
    assert_eq!((summary.weights_sha256.as_str(), summary.faults.len()), ("weights 40", 0));
    let steps: Vec<u64> = rig.seen.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (0..STEPS).collect::<Vec<_>>());
    let kept = read_events(&rig.checkpoints).await.unwrap();
    let outline = |event: &Event| (event.unix_ms, event.generation, std::mem::discriminant(&event.what));
    assert_eq!(kept.iter().map(outline).collect::<Vec<_>>(), rig.seen.all().iter().map(outline).collect::<Vec<_>>());
    assert!(matches!(kept.last().unwrap().what, What::RunFinished { step: STEPS, .. }));
    let checkpoints: Vec<u64> = rig.checkpoints.log().await.unwrap().iter().map(|manifest| manifest.position.step).collect();
    assert_eq!(checkpoints, [30, 40], "the two newest are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_within_a_second_of_a_death_and_take_back_who_returns() {
    let mut rig = Rig::new("death").await;
    rig.awaited = 4;
    let coordinator = rig.coordinator(3).await.unwrap();
    let replicas = [rig.replica(&coordinator, "a", None), rig.replica(&coordinator, "b", None)];
    let died = ended(rig.replica(&coordinator, "c", Some(7))).await.unwrap().unwrap();
    let back = rig.replica(&coordinator, "c", None);
    let summary = coordinator.wait().await.unwrap();
    for replica in replicas.into_iter().chain([back]) {
        ended(replica).await.unwrap();
    }
    let next = rig.seen.steps().into_iter().find(|(_, step)| *step == 7).unwrap().0;
    assert!(next.duration_since(died) < Duration::from_secs(1), "{:?}", next.duration_since(died));
    let steps: Vec<u64> = rig.seen.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (0..STEPS).collect::<Vec<_>>());
    let [fault] = &summary.faults[..] else { panic!("{:?}", summary.faults) };
    assert_eq!((fault.replica.as_str(), fault.cause, fault.step), ("c", Cause::Disconnected, 7));
    let samples = |event: Event| match event.what {
        What::StepCommitted { samples_digest, step, .. } => Some((step, samples_digest)),
        _ => None,
    };
    for (step, digest) in rig.seen.all().into_iter().filter_map(samples) {
        let parts: Vec<Digest> = (0u32..4).map(|index| Digest::of_parts([&step.to_le_bytes()[..], &index.to_le_bytes()])).collect();
        assert_eq!(digest, Digest::of_parts(parts.iter().map(|part| &part.as_bytes()[..])), "step {step} has its own samples");
    }
}

/// A member that keeps its connection open and says nothing, as a frozen process does.
struct Frozen {
    transport: Transport,
    member: u64,
    generation: u64,
    _presence: reqwest::Response,
}

impl Frozen {
    async fn join(coordinator: &Coordinator, rig: &Rig) -> Self {
        let transport = Transport::new(&coordinator.url(), TOKEN).unwrap();
        let join = Join { protocol: PROTOCOL, identity: identity("frozen"), config_digest: rig.run.digest(), order: order() };
        let joined: Joined = transport.ask("v1/join", &join).await.unwrap();
        let presence = transport.presence(joined.member).await.unwrap();
        let next = transport
            .ask("v1/assignment", &Ready { member: joined.member, turn: 1, have: None, held: vec![], reached: vec![], unreached: vec![] })
            .await
            .unwrap();
        let Next::Train { assignment } = next else { panic!("{next:?}") };
        Self { transport, member: joined.member, generation: assignment.generation, _presence: presence }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_replica_is_out_after_its_lease_and_can_write_nothing() {
    let mut rig = Rig::new("silence").await;
    rig.awaited = 3;
    let coordinator = rig.coordinator(2).await.unwrap();
    let alive = rig.replica(&coordinator, "a", None);
    let frozen = Frozen::join(&coordinator, &rig).await;
    let froze = Instant::now();
    let summary = coordinator.wait();
    tokio::pin!(summary);
    // The zombie wakes up while the run goes on without it.
    let first = loop {
        tokio::select! {
            _ = &mut summary => panic!("the run ended before the zombie woke up"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        if let Some((at, _)) = rig.seen.steps().first() {
            break *at;
        }
    };
    assert!(first.duration_since(froze) < Duration::from_millis(400 + 1000), "{:?}", first.duration_since(froze));
    let Frozen { transport, member, generation, .. } = &frozen;
    let state = Digest::of(b"state");
    let stale = Finish { member: *member, generation: *generation, step: 0, micro_batches: Vec::new(), state, timings: Timings::default() };
    assert_eq!(transport.ask::<Verdict>("v1/finish", &stale).await.unwrap_err().kind(), Kind::Fenced);
    let stale = Publish { member: *member, manifest: rig.manifest(1, *generation, "frozen").await };
    assert_eq!(transport.ask::<Published>("v1/checkpoint", &stale).await.unwrap_err().kind(), Kind::Fenced);
    // As another member it would be let in; that is what the replica waits for.
    let join = Join { protocol: PROTOCOL, identity: identity("frozen"), config_digest: rig.run.digest(), order: order() };
    assert_ne!(transport.ask::<Joined>("v1/join", &join).await.unwrap().member, *member);
    let summary = summary.await.unwrap();
    ended(alive).await.unwrap();
    assert_eq!((summary.step, summary.faults.len(), summary.faults[0].cause), (STEPS, 1, Cause::Lease));
    assert!(rig.checkpoints.at(1).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_coordinators_the_later_one_goes_on() {
    let rig = Rig::new("two").await;
    let first = rig.coordinator(1).await.unwrap();
    let second = rig.coordinator(1).await.unwrap();
    let cut_off = rig.replica(&first, "a", None);
    let error = first.wait().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{error}");
    assert!(error.to_string().contains("run `two`: another coordinator"), "{error}");
    ended(rig.replica(&second, "b", None)).await.unwrap();
    assert_eq!(second.wait().await.unwrap().step, STEPS);
    drop(first);
    drop(cut_off);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_started_again_goes_on_from_the_checkpoint() {
    let rig = Rig::new("again").await;
    let first = rig.coordinator(1).await.unwrap();
    ended(rig.replica(&first, "a", Some(25))).await.unwrap();
    first.stop();
    let before = rig.seen.all().iter().map(|event| event.generation).max().unwrap();
    let second = rig.coordinator(1).await.unwrap();
    ended(rig.replica(&second, "b", None)).await.unwrap();
    assert_eq!(second.wait().await.unwrap().step, STEPS);
    let steps: Vec<u64> = rig.seen.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (0..25).chain(20..STEPS).collect::<Vec<_>>());
    let formed = |event: &Event| matches!(event.what, What::GenerationFormed { step: 20, .. }) && event.generation > before;
    assert!(rig.seen.all().iter().any(formed), "a generation number is never used again");
    // And once more, when nothing is left to do.
    let third = rig.coordinator(1).await.unwrap();
    assert_eq!(third.wait().await.unwrap().weights_sha256, "weights 40");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_names_and_addresses_are_refused_with_their_names() {
    let mut rig = Rig::new("refused").await;
    let coordinator = rig.coordinator(1).await.unwrap();
    let url = coordinator.url();
    let address = url.trim_start_matches("http://").to_owned();
    let error = rig.listening_on(&address, 1).await.unwrap_err();
    assert!(error.to_string().contains(&address) && error.kind() == Kind::Unavailable, "{error}");
    let http = reqwest::Client::new();
    for path in ["run", "status", "presence?member=1", "key?generation=1&key=x"] {
        assert_eq!(http.get(format!("{url}/v1/{path}")).send().await.unwrap().status(), 401, "{path}");
    }
    for path in ["join", "renew", "leave", "assignment", "finish", "fail", "checkpoint", "key?generation=1&key=x"] {
        for token in ["", "another token"] {
            let answer = http.post(format!("{url}/v1/{path}")).bearer_auth(token).body("{}").send().await.unwrap();
            assert_eq!(answer.status(), 401, "{path}");
        }
    }
    let joined = std::thread::spawn(move || Session::meet(&url, "another token", identity("a")).map(drop));
    let error = ended(joined).await.unwrap_err();
    assert!(error.to_string().contains("token") && error.kind() == Kind::Invalid, "{error}");
    rig.run.seed = 9;
    let error = rig.coordinator(1).await.unwrap_err();
    assert!(error.to_string().starts_with("run `refused` exists with other settings"), "{error}");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_would_be_fed_in_another_order_is_refused_for_good() {
    let rig = Rig::new("order").await;
    let joined = |coordinator: &Coordinator, order| {
        let url = coordinator.url();
        std::thread::spawn(move || join(&url, identity("a"), order)?.leave())
    };
    let first = rig.coordinator(3).await.unwrap();
    ended(joined(&first, order())).await.unwrap();
    let second = rig.coordinator(3).await.unwrap();
    for coordinator in [&first, &second] {
        let error = ended(joined(coordinator, Digest::of(b"another"))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(&format!("expected {}, in which run `order` began", order().short())), "{error}");
    }
    ended(joined(&second, order())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_on_another_kind_of_device_is_refused() {
    let rig = Rig::new("devices").await;
    let coordinator = rig.coordinator(3).await.unwrap();
    let url = coordinator.url();
    let on = |name: &str, device: &str| Identity { device: device.to_owned(), ..identity(name) };
    let members = [on("a", "cuda:0"), on("b", "cuda:1"), on("c", "cpu")];
    let joined = std::thread::spawn(move || {
        let [a, b, c] = members.map(|identity| join(&url, identity, order()));
        let error = c.map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        a?.leave()?;
        b?.leave()?;
        Ok::<_, Error>(error.to_string())
    });
    let error = ended(joined).await.unwrap();
    assert!(error.contains("`c` computes on cpu, expected cuda:"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_is_called_when_the_generation_ends() {
    let rig = Rig::new("abort").await;
    let coordinator = rig.coordinator(2).await.unwrap();
    let url = coordinator.url();
    let (sender, told) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let session = join(&url, identity("a"), order())?;
        let place = session.assignment(&Progress::default())?.unwrap();
        let also = sender.clone();
        session.on_generation_end(place.generation, move |reason| also.send(reason.to_owned()).unwrap());
        let keys = session.rendezvous(&place)?;
        keys.wait("never", Duration::from_secs(20)).unwrap_err();
        // Both the keys and the presence stream say so, in either order.
        while keys.cancelled().is_none() {
            std::thread::yield_now();
        }
        // Set too late, it is called at once.
        session.on_generation_end(place.generation, move |reason| sender.send(reason.to_owned()).unwrap());
        session.leave()
    });
    let frozen = Frozen::join(&coordinator, &rig).await;
    drop(frozen);
    let reasons = tokio::task::spawn_blocking(move || [told.recv().unwrap(), told.recv().unwrap()]).await.unwrap();
    assert_eq!(reasons, ["replica frozen: its connection ended", "replica frozen: its connection ended"]);
    ended(waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_killed_and_started_elsewhere_costs_no_step() {
    let mut rig = Rig::new("elsewhere").await;
    // So that what goes on from the checkpoint begins anew.
    rig.run.checkpoint.every_steps = STEPS;
    // Both go on to step 20 when the second coordinator is there.
    rig.awaited = 3;
    let first = rig.coordinator(2).await.unwrap();
    let replicas = [rig.replica(&first, "a", None), rig.replica(&first, "b", None)];
    while rig.seen.steps().len() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = rig.seen.all().iter().map(|event| event.generation).max().unwrap();
    first.stop();
    drop(first);
    let second = rig.coordinator(1).await.unwrap();
    // They find it by the journal alone.
    assert_eq!(second.wait().await.unwrap().step, STEPS);
    for replica in replicas {
        ended(replica).await.unwrap();
    }
    let steps: Vec<u64> = rig.seen.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (0..STEPS).collect::<Vec<_>>(), "no step is lost or committed again");
    let formed = |event: &Event| match &event.what {
        What::GenerationFormed { members, step, .. } => Some((event.generation, members.len(), *step)),
        _ => None,
    };
    let formed: Vec<_> = rig.seen.all().iter().filter_map(formed).filter(|(generation, ..)| *generation > before).collect();
    assert_eq!((formed[0].1, formed[0].2), (2, 20), "it waits for both: {formed:?}");
}
