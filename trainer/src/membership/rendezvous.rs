//! The keys through which the members of one generation find each other: where they are kept, and a member's way to them.
//!
//! Promises: keys of one generation are never seen by another; who waits when the generation ends is told at once.
//! Only the running generation has keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::door;
use super::transport::{PATIENCE, Transport};
use crate::error::{Error, Kind, Result};

/// Keys of the running generation.
#[derive(Debug)]
pub(crate) struct Keys {
    state: Mutex<State>,
    // Counts changes, so that waiters look again.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    generation: Option<u64>,
    keys: HashMap<String, Bytes>,
}

/// The generation that was asked for does not run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Over;

impl Keys {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// From now on keys belong to `generation`; those of the one before are gone.
    pub(crate) fn open(&self, generation: Option<u64>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { generation, keys: HashMap::new() };
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn set(&self, generation: u64, key: &str, value: Bytes) -> std::result::Result<(), Over> {
        self.with(generation, |keys| drop(keys.insert(key.to_owned(), value)))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    pub(crate) fn add(&self, generation: u64, key: &str, amount: i64) -> std::result::Result<i64, Over> {
        let sum = self.with(generation, |keys| {
            let before = keys.get(key).and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok()).unwrap_or(0);
            let sum = before.wrapping_add(amount);
            keys.insert(key.to_owned(), Bytes::from(sum.to_string()));
            sum
        })?;
        self.changes.send_modify(|count| *count += 1);
        Ok(sum)
    }

    pub(crate) fn get(&self, generation: u64, key: &str) -> std::result::Result<Option<Bytes>, Over> {
        self.with(generation, |keys| keys.get(key).cloned())
    }

    /// The value once it is set; nothing if that takes longer than `patience`.
    pub(crate) async fn wait(&self, generation: u64, key: &str, patience: Duration) -> std::result::Result<Option<Bytes>, Over> {
        let mut changes = self.changes.subscribe();
        let found = async {
            loop {
                changes.borrow_and_update();
                if let Some(value) = self.get(generation, key)? {
                    return Ok(Some(value));
                }
                // The sender lives as long as `self`.
                if changes.changed().await.is_err() {
                    return Err(Over);
                }
            }
        };
        tokio::time::timeout(patience, found).await.unwrap_or(Ok(None))
    }

    fn with<T>(&self, generation: u64, act: impl FnOnce(&mut HashMap<String, Bytes>) -> T) -> std::result::Result<T, Over> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation != Some(generation) {
            return Err(Over);
        }
        Ok(act(&mut state.keys))
    }
}

/// Keys of one generation, kept by the coordinator. Every operation fails once the generation is over, or a peer is found to be
/// out of reach.
pub struct Rendezvous {
    transport: Transport,
    runtime: Handle,
    ended: Box<Ended>,
    generation: u64,
    unreached: Arc<Mutex<Option<String>>>,
    looking: JoinHandle<()>,
}

/// Why a generation is over, once it is.
type Ended = dyn Fn(u64) -> Option<String> + Send + Sync;

/// Peers that have not connected by then may be out of reach.
const DOUBT: Duration = Duration::from_secs(2);

/// How long one request of a waiting member is held open.
const WAIT: Duration = Duration::from_secs(5);

impl Rendezvous {
    pub(crate) fn new(transport: Transport, runtime: Handle, ended: Box<Ended>, generation: u64, peers: Vec<String>) -> Self {
        let unreached = Arc::default();
        let looking = runtime.spawn(look(peers, Arc::clone(&unreached)));
        Self { transport, runtime, ended, generation, unreached, looking }
    }

    /// Sets a key.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        self.send(Method::PUT, key, Duration::ZERO, Bytes::copy_from_slice(value)).map(drop)
    }

    /// Adds to the number in a key, 0 if it is not set, and returns the sum.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let answer = self.send(Method::POST, key, Duration::ZERO, Bytes::from(amount.to_string()))?.unwrap_or_default();
        serde_json::from_slice(&answer).map_err(|error| Error::with_source(Kind::Invalid, format!("key `{key}`: not a number"), error))
    }

    /// The value of a key if it is set.
    pub fn check(&self, key: &str) -> Result<Option<Bytes>> {
        self.send(Method::GET, key, Duration::ZERO, Bytes::new())
    }

    /// The value of a key; waits until it is set, as long as for a coordinator that is away.
    pub fn get(&self, key: &str) -> Result<Bytes> {
        self.wait(key, PATIENCE)
    }

    /// The value of a key; waits until it is set.
    pub fn wait(&self, key: &str, timeout: Duration) -> Result<Bytes> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(value) = self.send(Method::GET, key, left.min(WAIT), Bytes::new())? {
                return Ok(value);
            }
            if left.is_zero() {
                let message = format!("key `{key}` of generation {}: not set within {timeout:?}", self.generation);
                return Err(Error::new(Kind::Unavailable, message));
            }
        }
    }

    /// The members have connected, or will not: nobody is looked for any more.
    pub fn settled(&self) {
        self.looking.abort();
    }

    /// Why the generation is over, once it is, or who cannot be reached.
    pub fn cancelled(&self) -> Option<String> {
        (self.ended)(self.generation).or_else(|| self.unreached.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn send(&self, method: Method, key: &str, wait: Duration, body: Bytes) -> Result<Option<Bytes>> {
        if let Some(reason) = self.cancelled() {
            return Err(Error::new(Kind::Unavailable, format!("generation {} is over: {reason}", self.generation)));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let (transport, key) = (self.transport.clone(), key.to_owned());
        let (generation, wait_ms) = (self.generation.to_string(), wait.as_millis().to_string());
        self.runtime.spawn(async move {
            let query = [("generation", generation.as_str()), ("key", key.as_str()), ("wait_ms", wait_ms.as_str())];
            // The receiver waits below.
            let _ = sender.send(transport.send(method, "v1/key", &query, body).await);
        });
        receiver.recv().map_err(|_| Error::new(Kind::Unavailable, "the session has ended"))?
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.settled();
    }
}

/// Knocks at the doors of peers for as long as the rendezvous takes.
async fn look(peers: Vec<String>, unreached: Arc<Mutex<Option<String>>>) {
    loop {
        tokio::time::sleep(DOUBT).await;
        let (_, found) = door::knock(&peers).await;
        if !found.is_empty() {
            *unreached.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("no answer from {}", found.join(", ")));
        }
    }
}
