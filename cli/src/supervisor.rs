//! Keeps N replica processes of this host running: starts them, and starts again those that die.
//!
//! Promises: a replica that ends well or was refused (exit code 0 or 2) is not started again; one that keeps dying at once is
//! given up after a few tries. Deliberately absent: any part in the training; the coordinator notices deaths by itself.

use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use forebay::torch::{self, TOKEN_VARIABLE};
use forebay_trainer::Wish;

/// What a replica needs to find its coordinator.
#[derive(Clone)]
pub(crate) struct Invitation {
    /// URL of the coordinator.
    pub(crate) coordinator: String,
    /// Secret of the run; handed over in the environment, where `ps` does not show it.
    pub(crate) token: String,
    /// CPU threads of a replica; 0 shares the cores.
    pub(crate) threads: usize,
    /// What a replica computes on.
    pub(crate) device: Wish,
}

const POLL: Duration = Duration::from_millis(50);
const RESTART_AFTER: Duration = Duration::from_secs(1);
// A replica that dies within this time of its start counts towards giving up.
const QUICK_DEATH: Duration = Duration::from_secs(10);
const QUICK_DEATHS_MAX: u32 = 5;

/// Running replicas; dropping it ends them.
pub(crate) struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Seat {
    place: usize,
    name: String,
    child: Option<Child>,
    started: Instant,
    quick_deaths: u32,
    start_at: Option<Instant>,
}

impl Supervisor {
    /// Starts `replicas` processes; `say` gets a line for each start and death.
    pub(crate) fn start(
        replicas: usize,
        invitation: Invitation,
        say: impl Fn(&str) + Send + 'static,
        gave_up: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut seats = Vec::new();
        for place in 0..replicas {
            let name = format!("r{place}");
            let mut seat = Seat { place, name, child: None, started: Instant::now(), quick_deaths: 0, start_at: None };
            seat.launch(&invitation, &say)?;
            seats.push(seat);
        }
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seats.iter_mut().for_each(|seat| seat.tend(&invitation, &say));
                if seats.iter().all(|seat| seat.child.is_none() && seat.start_at.is_none()) {
                    gave_up();
                    return;
                }
                std::thread::sleep(POLL);
            }
            seats.iter_mut().for_each(Seat::end);
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the replicas that still run and waits for them.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has printed itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

impl Seat {
    fn launch(&mut self, invitation: &Invitation, say: &impl Fn(&str)) -> Result<()> {
        let mut command = torch::command()?;
        command.arg("replica").arg("--coordinator").arg(&invitation.coordinator).arg("--name").arg(&self.name);
        command.arg("--threads").arg(invitation.threads.to_string());
        command.arg("--device").arg(invitation.device.to_string()).arg("--place").arg(self.place.to_string());
        command.env(TOKEN_VARIABLE, &invitation.token).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start replica {}", self.name))?;
        say(&format!("replica {} started, pid {}", self.name, child.id()));
        self.child = Some(child);
        self.started = Instant::now();
        self.start_at = None;
        Ok(())
    }

    fn tend(&mut self, invitation: &Invitation, say: &impl Fn(&str)) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.child = None;
            self.mourn(status, say);
        }
        if self.start_at.is_some_and(|at| Instant::now() >= at)
            && let Err(error) = self.launch(invitation, say)
        {
            say(&format!("{error:#}"));
            self.start_at = None;
        }
    }

    fn mourn(&mut self, status: ExitStatus, say: &impl Fn(&str)) {
        if matches!(status.code(), Some(0 | 2)) {
            return;
        }
        let quick = self.started.elapsed() < QUICK_DEATH;
        self.quick_deaths = if quick { self.quick_deaths + 1 } else { 0 };
        if self.quick_deaths >= QUICK_DEATHS_MAX {
            say(&format!("replica {} ended ({status}) at once for the {QUICK_DEATHS_MAX}th time: given up", self.name));
            return;
        }
        say(&format!("replica {} ended ({status}): started again in {} s", self.name, RESTART_AFTER.as_secs()));
        self.start_at = Some(Instant::now() + RESTART_AFTER);
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; both are then no-ops.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
