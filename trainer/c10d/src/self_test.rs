//! Whether the libtorch that was loaded works as this crate assumes: two ranks in this process reduce, and an abort
//! wakes one that waits in vain. Takes some tens of milliseconds.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::group::{Patience, ProcessGroup};
use crate::store::{MemoryStore, Store};

const TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Patience = Patience { operation: TIMEOUT, silence: TIMEOUT };
const ABORT_WITHIN: Duration = Duration::from_secs(1);

/// Reduces between two ranks, then aborts a reduction that one rank never joins. Run once at start.
pub fn self_test() -> Result<()> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let other_store = Arc::clone(&store);
    let (handle_sender, handle_receiver) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let failed = |message: String| Error::new("self-test of libtorch's collectives", message);

    let waiting = thread::spawn(move || -> Result<(Vec<f64>, Error)> {
        let group = ProcessGroup::connect(other_store, "self-test", 1, 2, "127.0.0.1", PATIENCE)?;
        let sum = reduce(&group, 2.0)?;
        // A receiver that is gone means that the other rank failed, and says so itself.
        let _ = handle_sender.send(group.abort_handle());
        match reduce(&group, 0.0) {
            Err(error) => Ok((sum, error)),
            Ok(_) => Err(Error::new("all-reduce", "ended without its peer")),
        }
    });
    // This rank stays connected and silent, as a frozen process would, until the other one was aborted.
    let frozen = thread::spawn(move || -> Result<Vec<f64>> {
        let group = ProcessGroup::connect(store, "self-test", 0, 2, "127.0.0.1", PATIENCE)?;
        let sum = reduce(&group, 1.0)?;
        let _ = released.recv_timeout(TIMEOUT);
        Ok(sum)
    });

    let handle = handle_receiver.recv_timeout(TIMEOUT).map_err(|_| failed("two ranks did not connect".to_owned()));
    let aborted = handle.map(|handle| {
        handle.abort("self-test");
        Instant::now()
    });
    let joined = |_| failed("a rank panicked".to_owned());
    let waited = waiting.join().map_err(joined)?;
    let took = aborted.map(|at| at.elapsed());
    drop(release);
    let silent = frozen.join().map_err(joined)??;
    let (sum, error) = waited?;
    if sum != [3.0; 4] || silent != [3.0; 4] {
        return Err(failed(format!("sum of 1 and 2: found {sum:?} and {silent:?}")));
    }
    if took? > ABORT_WITHIN {
        return Err(failed(format!("an abort took longer than {ABORT_WITHIN:?}: {error}")));
    }
    Ok(())
}

fn reduce(group: &ProcessGroup, value: f64) -> Result<Vec<f64>> {
    let tensor = Tensor::full([4], value, (Kind::Float, Device::Cpu));
    group.all_reduce_sum(std::slice::from_ref(&tensor))?;
    Vec::<f64>::try_from(&tensor).map_err(|error| Error::new("all-reduce", error.to_string()))
}
