//! A clock that is turned by hand, and tasks that are polled until all of them wait.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::machine::Machine;

/// Time stands still until [`Turned::advance`].
#[derive(Default)]
pub(super) struct Turned {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    timers: BTreeMap<(Duration, u64), Waker>,
    made: u64,
}

impl Turned {
    /// Goes to the next moment at which something was to happen; false if nothing is.
    fn advance(&self) -> bool {
        let mut state = self.state.lock().expect("clock");
        let Some(((when, _), first)) = state.timers.pop_first() else { return false };
        state.now = state.now.max(when);
        first.wake();
        while let Some(timer) = state.timers.first_entry().filter(|timer| timer.key().0 <= when) {
            timer.remove().wake();
        }
        true
    }
}

impl Machine for Arc<Turned> {
    fn now(&self) -> Duration {
        self.state.lock().expect("clock").now
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let until = self.now() + time;
        Sleep { clock: Arc::clone(self), until, key: None }.boxed()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let pause = self.sleep(Duration::from_micros(100));
        async move {
            pause.await;
            work();
        }
        .boxed()
    }
}

struct Sleep {
    clock: Arc<Turned>,
    until: Duration,
    key: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = Arc::clone(&self.clock);
        let mut state = clock.state.lock().expect("clock");
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let key = *self.key.get_or_insert_with(|| {
            state.made += 1;
            state.made
        });
        state.timers.insert((self.until, key), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.state.lock().expect("clock").timers.remove(&(self.until, key));
        }
    }
}

/// Tasks by number; one that is frozen is not polled.
#[derive(Default)]
pub(super) struct Tasks<'a> {
    tasks: Vec<Task<'a>>,
}

struct Task<'a> {
    future: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    woken: Arc<Woken>,
    owner: usize,
    frozen: bool,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Tasks<'a> {
    /// Adds a task of an owner.
    pub(super) fn spawn(&mut self, owner: usize, future: impl Future<Output = ()> + 'a) {
        self.tasks.push(Task { future: Some(Box::pin(future)), woken: Arc::new(Woken(AtomicBool::new(true))), owner, frozen: false });
    }

    /// The owner's tasks are not polled any more, but hold what they hold.
    pub(super) fn freeze(&mut self, owner: usize) {
        self.tasks.iter_mut().filter(|task| task.owner == owner).for_each(|task| task.frozen = true);
    }

    /// Runs for so long, or until no task is left that is not frozen. False if the time is up.
    pub(super) fn run(&mut self, clock: &Arc<Turned>, until: Duration) -> bool {
        loop {
            while self.poll_woken() {}
            if self.tasks.iter().all(|task| task.future.is_none() || task.frozen) {
                return true;
            }
            if clock.now() >= until || !clock.advance() {
                return false;
            }
        }
    }

    fn poll_woken(&mut self) -> bool {
        let mut polled = false;
        for task in self.tasks.iter_mut().filter(|task| !task.frozen) {
            if let Some(future) = &mut task.future
                && task.woken.0.swap(false, Ordering::Relaxed)
            {
                polled = true;
                let waker = Waker::from(Arc::clone(&task.woken));
                if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    task.future = None;
                }
            }
        }
        polled
    }
}
