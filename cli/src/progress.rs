//! Progress bars: one line a stage, on standard error, silent where that is not a terminal.

use std::sync::Mutex;
use std::time::Duration;

use forebay_ingest::{Progress, Unit};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bars for the stages of a job. Without a terminal each stage is one line when it ends.
pub struct Bars {
    current: Mutex<Option<(String, ProgressBar, std::time::Instant)>>,
    plain: bool,
}

impl Default for Bars {
    fn default() -> Self {
        Self { current: Mutex::new(None), plain: !console_is_terminal() }
    }
}

impl Bars {
    /// Ends the last stage's bar.
    pub fn finish(&self) {
        let Ok(mut current) = self.current.lock() else { return };
        if let Some((name, bar, started)) = current.take() {
            bar.finish();
            if self.plain {
                eprintln!("{name:<12} {:>7.1} s", started.elapsed().as_secs_f64());
            }
        }
    }
}

/// A bar of `total` with rate and time left; none counts up.
pub fn bar(name: &str, total: Option<u64>, unit: Unit) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let count = match unit {
        Unit::Bytes => "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
        Unit::Records | Unit::Rows => "{human_pos}/{human_len} {per_sec}",
    };
    let template = match total {
        Some(_) => format!("{{prefix:<12}} [{{bar:32}}] {count} {{eta}} {{msg}}"),
        None => "{prefix:<12} {spinner} {human_pos} {elapsed} {msg}".to_owned(),
    };
    // The template is ours, so it parses; the default style serves if not.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Whether standard error is a terminal.
pub fn console_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

impl Progress for Bars {
    fn stage(&self, name: &str, total: Option<u64>, unit: Unit) {
        self.finish();
        if let Ok(mut current) = self.current.lock() {
            *current = Some((name.to_owned(), bar(name, total, unit), std::time::Instant::now()));
        }
    }

    fn advance(&self, amount: u64) {
        if let Ok(current) = self.current.lock()
            && let Some((_, bar, _)) = current.as_ref()
        {
            bar.inc(amount);
        }
    }

    fn note(&self, line: &str) {
        let Ok(current) = self.current.lock() else { return };
        match current.as_ref() {
            Some((_, bar, _)) if !self.plain => bar.println(line),
            _ => eprintln!("{line}"),
        }
    }
}
