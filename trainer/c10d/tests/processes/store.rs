//! A store in a folder, for groups of processes on one host: a key is a file, written under another name and renamed.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use forebay_c10d::Store;

const POLL: Duration = Duration::from_millis(1);

pub(crate) struct FolderStore(pub(crate) PathBuf);

impl FolderStore {
    /// The file of a key; a file `cancel` cancels every rendezvous.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.0.join(key.replace('/', "~"))
    }
}

impl Store for FolderStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let unfinished = self.path(&format!("{key}.{}.tmp", process::id()));
        fs::write(&unfinished, value).and_then(|()| fs::rename(&unfinished, self.path(key))).map_err(|error| error.to_string())
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        self.wait(key, Duration::from_secs(30))?;
        fs::read(self.path(key)).map_err(|error| error.to_string())
    }

    fn add(&self, key: &str, _amount: i64) -> Result<i64, String> {
        Err(format!("key `{key}`: the rendezvous is not expected to count"))
    }

    fn check(&self, key: &str) -> Result<bool, String> {
        Ok(self.path(key).exists())
    }

    fn wait(&self, key: &str, timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        while !self.path(key).exists() {
            if let Some(reason) = self.cancelled() {
                return Err(reason);
            }
            if Instant::now() > deadline {
                return Err(format!("key `{key}`: not set within {timeout:?}"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn cancelled(&self) -> Option<String> {
        self.path("cancel").exists().then(|| "a peer is gone".to_owned())
    }
}
