//! The coordinator of a run: takes the run up, serves its replicas, and says when it is done.
//!
//! Promises: what must outlive it is in the object store under the commit rule, so it can be killed at any moment and
//! started again anywhere; of two for one run the later one wins.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::serve::ListenerExt;
use forebay_schemas::checkpoint::{CheckpointManifest, DatasetVersionRef};
use forebay_schemas::run::Run;
use forebay_schemas::wire::{Mark, PROTOCOL, RunInfo};
use forebay_store::Checkpoints;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::group::{Cause, History};
use super::journal::claim;
use super::owner::Owner;
use super::rendezvous::Keys;
use super::routes::{Served, routes, token_digest};
use super::service::Service;
use crate::error::{Error, Kind, Result};
use crate::telemetry::{Event, Observer, Recorder, What};

/// Commands that may wait for the owner; more make their senders wait.
const BACKLOG: usize = 1024;

/// What a coordinator needs.
pub struct CoordinatorOptions {
    /// The run's settings.
    pub run: Run,
    /// The dataset version that they mean now; a run that began before keeps its own.
    pub dataset: DatasetVersionRef,
    /// Where the run's checkpoints and journal lie.
    pub checkpoints: Checkpoints,
    /// Address to listen on; port 0 for any free one.
    pub listen: SocketAddr,
    /// URL by which replicas that lost an earlier coordinator reach this one; the address that it listens on if left out.
    pub advertise: Option<String>,
    /// Secret that every request must show.
    pub token: String,
    /// The first step waits for so many replicas, but no longer than `elastic.gather`.
    pub expected: usize,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunSummary {
    /// Committed steps.
    pub step: u64,
    /// Samples consumed.
    pub samples: u64,
    /// Training loss of the last step.
    pub loss: Option<f64>,
    /// Digest of the weights.
    pub weights_sha256: String,
    /// Since this coordinator took the run up.
    pub seconds: f64,
    /// Replicas that were lost on the way.
    pub faults: Vec<Fault>,
}

/// A replica that died or froze.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// When, milliseconds since 1970 UTC.
    pub unix_ms: u64,
    /// In which generation.
    pub generation: u64,
    /// Committed steps at that time.
    pub step: u64,
    /// Its name.
    pub replica: String,
    /// Why it is out.
    pub cause: Cause,
    /// The same for people.
    pub detail: String,
}

/// A running coordinator; dropping it stops it.
#[derive(Debug)]
pub struct Coordinator {
    address: SocketAddr,
    outcome: watch::Receiver<Option<std::result::Result<RunSummary, (Kind, String)>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Coordinator {
    /// Takes the run up and begins to serve.
    ///
    /// `Invalid` if the run's name was used with other settings; `Unavailable` if the address is in use or the store
    /// cannot be reached.
    ///
    /// Boxed, because the code of an `async fn` is generated again in every crate that awaits it, here with the HTTP server.
    pub fn start(options: CoordinatorOptions) -> BoxFuture<'static, Result<Self>> {
        Box::pin(Self::take_up(options))
    }

    async fn take_up(options: CoordinatorOptions) -> Result<Self> {
        let CoordinatorOptions { run, dataset, checkpoints, listen, advertise, token, expected, observer } = options;
        if token.is_empty() {
            return Err(Error::new(Kind::Invalid, "the coordinator's token is empty, expected a secret"));
        }
        run.validate()?;
        // Before the journal is claimed: a coordinator that cannot serve must not fence one that does.
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|error| {
            Error::with_source(Kind::Unavailable, format!("address {listen} cannot be listened on, choose another one: {error}"), error)
        })?;
        let address = listener.local_addr().map_err(|error| Error::with_source(Kind::Internal, format!("address {listen}"), error))?;
        // An address that stands for all of this host's is of no use elsewhere.
        let own = || if address.ip().is_unspecified() { String::new() } else { url(address) };
        let advertise = advertise.unwrap_or_else(own);
        let claimed = claim(&checkpoints, &run, &dataset, &advertise, unix_ms()).await?;
        let last_manifest = checkpoints.latest().await?;
        let mark = |manifest: &CheckpointManifest| Mark { step: manifest.position.step, generation: manifest.generation };
        let generation = claimed.history.generation;
        let history = History { checkpoint: last_manifest.as_ref().map(mark), ..claimed.history };
        let service = Service::new(run.clone(), claimed.dataset.identity, history, expected);

        let (sender, receiver) = mpsc::channel(BACKLOG);
        let keys = Arc::new(Keys::new());
        let info = RunInfo { protocol: PROTOCOL, config_digest: run.digest(), dataset: claimed.dataset.clone(), run: run.clone() };
        let served =
            Served { info, token_digest: token_digest(&token), beat: beat(&run), commands: sender.clone(), keys: Arc::clone(&keys) };
        let mut recorder = Recorder::new(generation);
        let step = service.group().state().step;
        let what = What::RunStarted { run: run.name.clone(), step, steps: run.batch.steps, dataset: claimed.dataset };
        let started = Event { unix_ms: unix_ms(), generation: 0, what };
        observer.event(&started);
        recorder.add(&started);
        let owner = Owner {
            run,
            checkpoints,
            ledger: claimed.ledger,
            service,
            keys,
            observer,
            recorder,
            last_manifest,
            commands: sender,
            began: Instant::now(),
            streams: HashMap::new(),
            faults: Vec::new(),
            done_since: None,
        };

        let (said, outcome) = watch::channel(None);
        let work = tokio::spawn(async move {
            let outcome = owner.work(receiver).await.map_err(|error| (error.kind(), error.chain()));
            said.send_replace(Some(outcome));
        });
        let router = routes(Arc::new(served));
        // Small answers must not wait for acknowledgements of earlier ones. A connection that does not take the option works, too.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let serve = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the coordinator stopped serving");
            }
        });
        Ok(Self { address, outcome, tasks: [work, serve] })
    }

    /// Where replicas reach it, if they reach this host by the address it listens on.
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Waits until all steps are committed, the last checkpoint is published and the replicas have left. `Fenced` if
    /// another coordinator has taken the run over.
    pub async fn wait(&self) -> Result<RunSummary> {
        let mut outcome = self.outcome.clone();
        let stopped = |_| Error::new(Kind::Internal, "the coordinator was stopped");
        match &*outcome.wait_for(Option::is_some).await.map_err(stopped)? {
            Some(Ok(summary)) => Ok(summary.clone()),
            Some(Err((kind, message))) => Err(Error::new(*kind, message.clone())),
            None => Err(Error::new(Kind::Internal, "the coordinator ended without an outcome")),
        }
    }

    /// Stops serving at once, as if it were killed.
    pub fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop();
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Both sides say something four times a lease.
fn beat(run: &Run) -> Duration {
    run.elastic.lease.duration() / 4
}

/// Milliseconds since 1970 UTC.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
