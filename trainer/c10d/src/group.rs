//! A process group over Gloo that can be aborted, and its rendezvous, which can be cancelled.
//!
//! A group is used up by its first failure: every later operation fails too, and the peers are told by closed sockets.
//! Deliberately absent: a way to repair it. Make a new one, under a prefix that was never used before.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tch::{Device, Tensor};

use crate::error::{Error, Result};
use crate::ffi::{self, outcome, pointers};
use crate::store::{Store, StoreCalls};

/// How often a connecting group asks its store whether it is still wanted.
const CANCEL_POLL: Duration = Duration::from_millis(5);

/// A group that takes longer to leave is left behind.
const LEAVE: Duration = Duration::from_secs(1);

/// How long a group waits for its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Bounds the rendezvous and every later operation.
    pub operation: Duration,
    /// A connection over which nothing that was sent is acknowledged for so long is cut, and breaks.
    pub silence: Duration,
}

/// Connected processes that reduce and broadcast tensors together; all must call the same operations in the same order.
#[derive(Debug)]
pub struct ProcessGroup {
    raw: RawGroup,
    rank: usize,
    world: usize,
}

impl ProcessGroup {
    /// Connects this process as `rank` of `world`; blocks until all are connected.
    ///
    /// `prefix` separates the keys of this group from those of all others in `store`, and must never be used twice.
    /// `hostname` names the interface that the others reach this process by. Fails at once when the store fails or says that it
    /// is cancelled.
    pub fn connect(store: Arc<dyn Store>, prefix: &str, rank: usize, world: usize, hostname: &str, patience: Patience) -> Result<Self> {
        let operation = format!("connect `{prefix}` as rank {rank} of {world} on `{hostname}`");
        let wrong = |what: &str| Error::new(operation.as_str(), what);
        if rank >= world {
            return Err(wrong("expected a rank below the world size"));
        }
        let rank_number = i32::try_from(rank).map_err(|_| wrong("the rank does not fit 31 bits"))?;
        let world_number = i32::try_from(world).map_err(|_| wrong("the world size does not fit 31 bits"))?;
        let prefix_text = CString::new(prefix).map_err(|_| wrong("the prefix contains a zero byte"))?;
        let host_text = CString::new(hostname).map_err(|_| wrong("the host name contains a zero byte"))?;
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let (timeout_ms, silence_ms) = (milliseconds(patience.operation), milliseconds(patience.silence));

        // On a thread of its own: between publishing an address and the peer's connection libtorch listens to nobody, so
        // a cancelled rendezvous is left behind, to end by itself at the timeout and free what it holds.
        let (sender, receiver) = mpsc::channel();
        let calls_store = Arc::clone(&store);
        let thread_operation = operation.clone();
        let connect = move || {
            let mut raw = ptr::null_mut();
            // SAFETY: all pointers live through the call; the shim takes the store over.
            let message = unsafe {
                ffi::forebay_c10d_group_connect(
                    StoreCalls::new(calls_store),
                    prefix_text.as_ptr(),
                    rank_number,
                    world_number,
                    host_text.as_ptr(),
                    timeout_ms,
                    silence_ms,
                    &raw mut raw,
                )
            };
            // A receiver that is gone drops the group here.
            let _ = sender.send(outcome(&thread_operation, message).map(|()| RawGroup(raw)));
        };
        thread::Builder::new().name("c10d-connect".to_owned()).spawn(connect).map_err(|error| wrong(&error.to_string()))?;
        loop {
            match receiver.recv_timeout(CANCEL_POLL) {
                Ok(raw) => return Ok(Self { raw: raw?, rank, world }),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(reason) = store.cancelled() {
                        return Err(wrong(&format!("cancelled: {reason}")));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(wrong("the connecting thread died")),
            }
        }
    }

    /// This process's number in the group.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes in the group.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Replaces every tensor by its sum over the group, in place. Blocks; the group is aborted on failure.
    pub fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()> {
        check_tensors("all-reduce", tensors)?;
        let raw = pointers(tensors);
        // SAFETY: the group is alive, and the tensors are borrowed until the call returns.
        outcome("all-reduce", unsafe { ffi::forebay_c10d_group_all_reduce_sum(self.raw.0, raw.as_ptr(), raw.len()) })
    }

    /// Replaces every tensor by that of rank `root`, in place. Blocks; the group is aborted on failure.
    pub fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<()> {
        check_tensors("broadcast", tensors)?;
        let root = i32::try_from(root).ok().filter(|_| root < self.world);
        let root = root.ok_or_else(|| Error::new("broadcast", format!("expected a root below the world size {}", self.world)))?;
        let raw = pointers(tensors);
        // SAFETY: as above.
        outcome("broadcast", unsafe { ffi::forebay_c10d_group_broadcast(self.raw.0, raw.as_ptr(), raw.len(), root) })
    }

    /// Sends `counts[r]` consecutive elements of `input` to each rank `r`, and returns what the ranks sent to this one, in their
    /// order: `expected[r]` elements from rank `r`. Flat tensors of one type. Blocks; the group is aborted on failure.
    pub fn all_to_all(&self, input: &Tensor, counts: &[i64], expected: &[i64]) -> Result<Tensor> {
        let output = Tensor::empty([expected.iter().sum::<i64>()], (input.kind(), input.device()));
        let flat = input.dim() == 1 && input.numel() as i64 == counts.iter().sum::<i64>();
        if !flat || counts.len() != self.world || expected.len() != self.world {
            let found = format!("shape {:?}, {} and {} counts", input.size(), counts.len(), expected.len());
            return Err(Error::new("all-to-all", format!("{found}, expected a flat tensor and a count for each of {} ranks", self.world)));
        }
        if input.device() != Device::Cpu {
            return Err(Error::new(
                "all-to-all",
                format!("a tensor on {:?}, expected one in host memory: Gloo has no other", input.device()),
            ));
        }
        check_tensors("all-to-all", std::slice::from_ref(input))?;
        let (to, from) = (pointers(std::slice::from_ref(&output))[0], pointers(std::slice::from_ref(input))[0]);
        // SAFETY: as above; the counts have one entry a rank and add up to the sizes of the tensors.
        let message = unsafe { ffi::forebay_c10d_group_all_to_all(self.raw.0, to, from, expected.as_ptr(), counts.as_ptr(), self.world) };
        outcome("all-to-all", message)?;
        Ok(output)
    }

    /// Closes the connections and ends the group's threads, on a thread of its own: it takes tens of milliseconds, in which
    /// the next group may be connected.
    pub fn leave(self) -> Leaving {
        // Without a thread it is dropped here.
        Leaving(thread::Builder::new().name("c10d-leave".to_owned()).spawn(move || drop(self)).ok())
    }

    /// A handle that aborts this group from any thread.
    pub fn abort_handle(&self) -> AbortHandle {
        // SAFETY: the group is alive. Null, on a lack of memory, is checked before each use.
        AbortHandle(Arc::new(RawHandle(unsafe { ffi::forebay_c10d_abort_handle(self.raw.0) })))
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.raw.0
    }
}

/// A group that is being left; dropped, it waits a while for that. An operation that an abort did not end holds it up until its
/// timeout, and is left behind.
#[derive(Debug)]
pub struct Leaving(Option<thread::JoinHandle<()>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(thread) = self.0.take() else { return };
        let began = Instant::now();
        while !thread.is_finished() {
            if began.elapsed() > LEAVE {
                return;
            }
            thread::sleep(CANCEL_POLL);
        }
        // A panic there has printed itself.
        let _ = thread.join();
    }
}

/// Gloo takes dense tensors; anything else would be an exception without a name.
fn check_tensors(operation: &str, tensors: &[Tensor]) -> Result<()> {
    for (index, tensor) in tensors.iter().enumerate() {
        if !matches!(tensor.device(), Device::Cpu | Device::Cuda(_)) || !tensor.is_contiguous() {
            let found = format!("shape {:?} on {:?}", tensor.size(), tensor.device());
            return Err(Error::new(operation, format!("tensor {index}: {found}, expected a contiguous tensor of the host or a GPU")));
        }
    }
    Ok(())
}

/// Aborts a group: whoever waits on it gets an error within milliseconds, here and on its peers.
#[derive(Clone, Debug)]
pub struct AbortHandle(Arc<RawHandle>);

impl AbortHandle {
    /// Aborts with a reason that the failed operations report. Only the first call counts; after the group was dropped
    /// it does nothing.
    pub fn abort(&self, reason: &str) {
        if self.0.0.is_null() {
            return;
        }
        let reason = CString::new(reason.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the handle is alive, and the shim's control block is guarded by a mutex. An exception while closing
        // one socket leaves nothing for the caller to do.
        let _ = outcome("abort", unsafe { ffi::forebay_c10d_abort(self.0.0, reason.as_ptr()) });
    }
}

#[derive(Debug)]
struct RawGroup(*mut c_void);

// SAFETY: the C++ group has no thread affinity. It is not Sync: operations must be issued in one order.
unsafe impl Send for RawGroup {}

impl Drop for RawGroup {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: owned, and freed once.
            unsafe { ffi::forebay_c10d_group_free(self.0) };
        }
    }
}

#[derive(Debug)]
struct RawHandle(*mut c_void);

// SAFETY: the handle is a shared_ptr to a control block whose every access takes its mutex.
unsafe impl Send for RawHandle {}
// SAFETY: as above.
unsafe impl Sync for RawHandle {}

impl Drop for RawHandle {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once; null is allowed.
        unsafe { ffi::forebay_c10d_abort_handle_free(self.0) };
    }
}
