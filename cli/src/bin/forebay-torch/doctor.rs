//! `forebay doctor`: is this machine, and is this store, fit for work.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use forebay_store::{Location, commit};
use serde_json::json;

use forebay::config::runtime;
use forebay::failure::chain;
use forebay::output;

/// Checks the machine, libtorch with its collectives, and that a store honours put-if-absent
#[derive(Args)]
#[command(after_help = "Example:\n  forebay doctor\n  forebay doctor s3://bucket/lake")]
pub(crate) struct Doctor {
    /// URLs or paths of stores to try; a probe object is written and deleted
    stores: Vec<String>,
    /// Prints {"healthy": bool, "checks": [{check, ok, detail}]}
    #[arg(long)]
    json: bool,
}

struct Check {
    name: String,
    ok: bool,
    detail: String,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<()> {
        let mut checks = vec![machine(), memory()];
        checks.push(libtorch());
        for store in &self.stores {
            checks.push(runtime()?.block_on(put_if_absent(store)));
        }
        let healthy = checks.iter().all(|check| check.ok);
        if self.json {
            let checks: Vec<_> = checks.iter().map(|c| json!({"check": c.name, "ok": c.ok, "detail": c.detail})).collect();
            output::json(&json!({"healthy": healthy, "checks": checks}))?;
        } else {
            for check in &checks {
                output::line(format!("{:<6} {:<12} {}", if check.ok { "ok" } else { "FAILED" }, check.name, check.detail))?;
            }
        }
        anyhow::ensure!(healthy, "not everything is in order, see the lines marked FAILED");
        Ok(())
    }
}

fn machine() -> Check {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let detail = format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH);
    Check { name: "machine".to_owned(), ok: cores > 0, detail }
}

fn memory() -> Check {
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match available {
        Some(kib) => Check {
            name: "memory".to_owned(),
            ok: kib >= 2 << 20,
            detail: format!("{:.1} GiB available, 2 GiB needed", kib as f64 / f64::from(1 << 20)),
        },
        None => Check { name: "memory".to_owned(), ok: true, detail: "unknown (no /proc/meminfo)".to_owned() },
    }
}

fn libtorch() -> Check {
    let name = "libtorch".to_owned();
    match forebay_torch::self_test() {
        Ok(detail) => Check { name, ok: true, detail },
        Err(error) => Check { name, ok: false, detail: chain(&error.into()) },
    }
}

async fn put_if_absent(store: &str) -> Check {
    let started = Instant::now();
    let tried = async { commit::require_put_if_absent(&Location::open(store).await?).await };
    let (ok, detail) = match tried.await {
        Ok(()) => (true, format!("{store} honours put-if-absent, probed in {} ms", started.elapsed().as_millis())),
        Err(error) => (false, chain(&error.into())),
    };
    Check { name: "store".to_owned(), ok, detail }
}
