//! The progress of a sampling or training: a bar on a terminal, or else a line from time to time.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::note;

/// A line is written after each such part (5%), and after the first step.
const PARTS: usize = 20;
/// In a long run, a line is also written after this time.
const SELDOM: Duration = Duration::from_secs(30);

/// Shows the steps of one run on stderr.
pub struct Progress {
    view: View,
    pace: Pace,
    /// Printed after the first step. Until then, the run may be refused with a one-line error.
    title: Option<String>,
    done: usize,
    /// The step of the last line.
    shown: Option<usize>,
    /// The time of the last line.
    shown_at: Instant,
}

enum View {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    /// Shows a bar if stderr is a terminal, or else lines, below `title`. Shows nothing if `quiet`.
    pub fn start(title: String, quiet: bool) -> Progress {
        let view = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => View::Nothing,
            (false, true) => View::Bar(bar()),
            (false, false) => View::Lines,
        };
        Progress {
            view,
            pace: Pace::start(0),
            title: Some(title),
            done: 0,
            shown: None,
            shown_at: Instant::now(),
        }
    }

    /// The same for a resumed run with `done` steps done.
    pub fn resume(title: String, quiet: bool, done: usize) -> Progress {
        Progress { pace: Pace::start(done), done, ..Progress::start(title, quiet) }
    }

    /// Reports that `done` of `steps` steps are done. With 0, the model is being loaded. A repeated call has no effect.
    pub fn step(&mut self, done: usize, steps: usize) {
        self.step_with(done, steps, "");
    }

    /// [`Self::step`] with additional text.
    pub fn step_with(&mut self, done: usize, steps: usize, more: &str) {
        if done == 0 {
            return self.loading(steps);
        }
        if done == self.done {
            return;
        }
        self.done = done;
        self.print_title();
        let timing = format!("{}{more}", self.pace.now(done, steps).0);
        match &self.view {
            View::Bar(bar) => {
                bar.update(|state| {
                    state.set_len(steps as u64);
                    state.set_pos(done as u64);
                });
                bar.set_message(timing);
            }
            View::Lines if is_due(self.shown, done, steps) || self.shown_at.elapsed() >= SELDOM => {
                (self.shown, self.shown_at) = (Some(done), Instant::now());
                note(&line(done, steps, &timing));
            }
            View::Lines | View::Nothing => {}
        }
    }

    /// The time of loading does not count for the steps.
    fn loading(&mut self, steps: usize) {
        self.pace = Pace::start(0);
        if let View::Bar(bar) = &self.view {
            bar.set_length(steps as u64);
        }
    }

    fn print_title(&mut self) {
        let Some(title) = self.title.take() else { return };
        match &self.view {
            View::Bar(bar) => bar.suspend(|| note(&title)),
            View::Lines => note(&title),
            View::Nothing => {}
        }
    }

    /// Leaves the bar, and continues on a new line. The bar is removed if no step was done.
    pub fn finish(self) {
        match (self.view, self.title) {
            (View::Bar(bar), Some(_)) => bar.finish_and_clear(),
            (View::Bar(bar), None) => {
                bar.abandon();
                note("");
            }
            (View::Lines | View::Nothing, _) => {}
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr()).with_message("loading");
    match ProgressStyle::with_template("{percent:>3}%|{bar:30}| {pos}/{len} {msg}") {
        Ok(style) => bar.with_style(style.progress_chars("█▉▊▋▌▍▎▏ ")),
        Err(_) => bar,
    }
}

/// Whether a line is due after step `done`, if the last line was written after step `shown`.
pub fn is_due(shown: Option<usize>, done: usize, steps: usize) -> bool {
    let part = |step: usize| PARTS * step / steps.max(1);
    shown.is_none_or(|shown| part(done) != part(shown))
}

/// A line in the layout of tqdm, which clients of the HTTP interface parse: `  4%|▌         | 2/50 …`.
pub fn line(done: usize, steps: usize, timing: &str) -> String {
    const WIDTH: usize = 10;
    let steps_or_one = steps.max(1);
    let (full, percent) = (WIDTH * done / steps_or_one, 100 * done / steps_or_one);
    format!(
        "{percent:>3}%|{}{}| {done}/{steps} {timing}",
        "█".repeat(full),
        " ".repeat(WIDTH.saturating_sub(full))
    )
}

/// Seconds per step, counted from the end of the first step, because the first also warms up caches.
pub struct Pace {
    start: Instant,
    /// Steps that were done at the start.
    before: usize,
    first: Option<(Duration, usize)>,
}

impl Pace {
    /// Begins where `before` steps are done.
    pub fn start(before: usize) -> Pace {
        Pace { start: Instant::now(), before, first: None }
    }

    /// `[elapsed<left, seconds a step]` now that `done` steps are done, and the seconds that are left.
    pub fn now(&mut self, done: usize, steps: usize) -> (String, f64) {
        self.step(self.start.elapsed(), done, steps)
    }

    fn step(&mut self, elapsed: Duration, done: usize, steps: usize) -> (String, f64) {
        let (first, counted) = *self.first.get_or_insert((elapsed, done));
        let pace = match done.saturating_sub(counted) {
            0 => elapsed.as_secs_f64() / done.saturating_sub(self.before).max(1) as f64,
            more => (elapsed - first).as_secs_f64() / more as f64,
        };
        let left = pace * steps.saturating_sub(done) as f64;
        let text = format!("[{}<{}, {pace:.2}s/step]", clock(elapsed.as_secs()), clock(left.round() as u64));
        (text, left)
    }
}

fn clock(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m:02}:{s:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: the layout that clients parse, `^\s*\d+%\s*\|.+?\|\s*\d+/\d+`.
    #[test]
    fn lines_read_as_tqdm() {
        assert_eq!(
            line(2, 50, "[00:03<01:12, 1.51s/step]"),
            "  4%|          | 2/50 [00:03<01:12, 1.51s/step]"
        );
        assert_eq!(line(50, 50, "[]"), "100%|██████████| 50/50 []");
        assert!(line(0, 0, "").starts_with("  0%|"));
    }

    /// Protects logs of long runs: they stay short, and contain the first and the last step.
    #[test]
    fn lines_are_few() {
        for steps in [1, 3, 50, 500] {
            let mut shown = Vec::new();
            for done in 1..=steps {
                if is_due(shown.last().copied(), done, steps) {
                    shown.push(done);
                }
            }
            assert_eq!((shown[0], shown[shown.len() - 1]), (1, steps));
            assert!(shown.len() <= PARTS + 1, "{shown:?}");
        }
    }

    /// Protects the remaining time: it does not include the first step, once there is another.
    #[test]
    fn the_first_step_does_not_count() {
        let mut pace = Pace::start(0);
        let second = Duration::from_secs;
        assert_eq!(pace.step(second(10), 1, 5).0, "[00:10<00:40, 10.00s/step]");
        assert_eq!(pace.step(second(12), 2, 5).0, "[00:12<00:06, 2.00s/step]");
        assert_eq!(pace.step(second(3700), 3, 5).0, "[1:01:40<1:01:30, 1845.00s/step]");
        let mut resumed = Pace::start(3);
        assert_eq!(resumed.step(second(10), 4, 5).0, "[00:10<00:10, 10.00s/step]");
    }
}
