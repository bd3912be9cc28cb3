//! The keys through which the members of one generation find each other.
//!
//! Promises: keys of one generation are never seen by another; who waits when the generation ends is told at once.
//! Only the running generation has keys.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

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

    pub(crate) fn set(&self, generation: u64, key: &str, value: Bytes) -> Result<(), Over> {
        self.with(generation, |keys| drop(keys.insert(key.to_owned(), value)))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    pub(crate) fn add(&self, generation: u64, key: &str, amount: i64) -> Result<i64, Over> {
        let sum = self.with(generation, |keys| {
            let before = keys.get(key).and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok()).unwrap_or(0);
            let sum = before.wrapping_add(amount);
            keys.insert(key.to_owned(), Bytes::from(sum.to_string()));
            sum
        })?;
        self.changes.send_modify(|count| *count += 1);
        Ok(sum)
    }

    pub(crate) fn get(&self, generation: u64, key: &str) -> Result<Option<Bytes>, Over> {
        self.with(generation, |keys| keys.get(key).cloned())
    }

    /// The value once it is set; nothing if that takes longer than `patience`.
    pub(crate) async fn wait(&self, generation: u64, key: &str, patience: Duration) -> Result<Option<Bytes>, Over> {
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

    fn with<T>(&self, generation: u64, act: impl FnOnce(&mut HashMap<String, Bytes>) -> T) -> Result<T, Over> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation != Some(generation) {
            return Err(Over);
        }
        Ok(act(&mut state.keys))
    }
}
