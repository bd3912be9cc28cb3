//! The coordinator's keys of a generation as the store over which collectives find their peers.

use std::time::Duration;

use forebay_trainer::membership::Rendezvous;

/// The keys of one generation.
pub(crate) struct PeerStore(pub(crate) Rendezvous);

impl forebay_c10d::Store for PeerStore {
    fn set(&self, key: &str, value: &[u8]) -> std::result::Result<(), String> {
        self.0.set(key, value).map_err(|error| error.to_string())
    }

    fn get(&self, key: &str) -> std::result::Result<Vec<u8>, String> {
        self.0.get(key).map(Vec::from).map_err(|error| error.to_string())
    }

    fn add(&self, key: &str, amount: i64) -> std::result::Result<i64, String> {
        self.0.add(key, amount).map_err(|error| error.to_string())
    }

    fn check(&self, key: &str) -> std::result::Result<bool, String> {
        self.0.check(key).map(|value| value.is_some()).map_err(|error| error.to_string())
    }

    fn wait(&self, key: &str, timeout: Duration) -> std::result::Result<(), String> {
        self.0.wait(key, timeout).map(drop).map_err(|error| error.to_string())
    }

    fn cancelled(&self) -> Option<String> {
        self.0.cancelled()
    }
}
