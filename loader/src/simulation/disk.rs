//! A disk in memory that fails, is full, and damages what lies on it; claims end when their holder is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use super::Chance;
use crate::cache::disk::{Claim, Disk};

/// The disk of a host.
pub(super) struct Platter {
    state: Arc<Mutex<State>>,
    /// One in so many operations fails, one in so many reads finds a damaged file; 0 never.
    fails: u64,
    damages: u64,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    claims: BTreeSet<u64>,
    chance: Chance,
    most_bytes: u64,
}

struct Held {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl Claim for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.state.lock().expect("disk").claims.remove(&self.number);
    }
}

impl Platter {
    pub(super) fn new(fails: u64, damages: u64, seed: u64) -> Self {
        let (files, claims) = (BTreeMap::new(), BTreeSet::new());
        let state = State { files, claims, chance: Chance::new(seed), most_bytes: 0 };
        Self { state: Arc::new(Mutex::new(state)), fails, damages }
    }

    /// Most bytes that lay there.
    pub(super) fn most_bytes(&self) -> u64 {
        self.state.lock().expect("disk").most_bytes
    }

    fn failed(&self, state: &mut State) -> io::Result<()> {
        if state.chance.one_in(self.fails) { Err(io::Error::other("simulated")) } else { Ok(()) }
    }
}

impl Disk for Platter {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state.lock().expect("disk");
        self.failed(&mut state)?;
        Ok(state.files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.state.lock().expect("disk");
        self.failed(&mut state)?;
        if state.chance.one_in(self.damages) {
            let (cut, at, bit) = (state.chance.one_in(2), state.chance.below(1 << 32) as usize, state.chance.below(8));
            if let Some(bytes) = state.files.get_mut(name).filter(|bytes| !bytes.is_empty()) {
                let at = at % bytes.len();
                if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            }
        }
        Ok(state.files.get(name).cloned())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().expect("disk");
        self.failed(&mut state)?;
        state.files.insert(name.to_owned(), bytes.to_vec());
        let bytes = state.files.values().map(|bytes| bytes.len() as u64).sum();
        state.most_bytes = state.most_bytes.max(bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock().expect("disk");
        self.failed(&mut state)?;
        state.files.remove(name);
        Ok(())
    }

    fn claim(&self, number: u64) -> Option<Box<dyn Claim>> {
        // Few, so that strangers get into each other's way.
        let number = number % 4;
        let free = self.state.lock().expect("disk").claims.insert(number);
        free.then(|| Box::new(Held { state: Arc::clone(&self.state), number }) as Box<dyn Claim>)
    }
}
