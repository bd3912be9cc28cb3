//! Time and threads of the machine, which a simulation replaces by its own.
//!
//! Whatever waits or blocks does so through this trait, so the same code runs under a clock that is turned by hand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;

/// A clock, and threads that may block.
pub(crate) trait Machine: Send + Sync {
    /// Time since some moment.
    fn now(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;

    /// Does work that blocks, for example on a disk.
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// The result of work that blocks; none if the machine is shutting down.
pub(crate) async fn blocking<T: Send + 'static>(machine: &dyn Machine, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    machine.block(Box::new(move || *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(work()))).await;
    result.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The real one, of the runtime that polls.
pub(crate) struct Real {
    began: Instant,
}

impl Real {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now() }
    }
}

impl Machine for Real {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        // Fails only where the runtime is shutting down, and then nobody waits for the result.
        tokio::task::spawn_blocking(work).map(|_| ()).boxed()
    }
}
