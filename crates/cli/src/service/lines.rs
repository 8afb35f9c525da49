//! What a process says on stderr.

use std::io::BufRead;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use calotype_request::TrainInput;
use calotype_serve::engine::{EngineError, Progress, Work};
use serde_json::{Map, Value};

use super::engine_error;
use crate::failure::Failure;

/// What goes on before the first step, as the program says it.
const STAGES: [&str; 4] = [
    "finding what matters in the pictures",
    "upscaling small pictures",
    "writing captions",
    "encoding the pictures",
];
/// The beginning of a line that is for users of the command line.
const RESUME: &str = "resume with: ";

/// What the process says.
#[derive(Default)]
pub struct Lines {
    /// The last line of an error.
    error: Mutex<Option<String>>,
    /// Whether the run has begun, so that its folder tells how far it is.
    has_begun: AtomicBool,
}

impl Lines {
    /// Reads all lines, and tells them and the progress in them, if somebody is to be told.
    pub fn read(&self, stderr: impl BufRead, work: Option<&dyn Work>) {
        let mut stage = "preprocessing";
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if line.starts_with(RESUME) {
                continue;
            }
            if let Some(error) = line.strip_prefix("error: ") {
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
            }
            let Some(work) = work else { continue };
            stage = STAGES.into_iter().find(|known| line == *known).unwrap_or(stage);
            if let Some((done, total)) = steps(&line)
                && !self.has_begun.load(Ordering::SeqCst)
            {
                let (seconds_left, losses) = (None, Vec::new());
                work.progress(Progress { stage: stage.into(), done, total, seconds_left, losses });
            }
            work.log(&line);
        }
    }

    /// The folder of a run tells from now on how far it is.
    pub fn run_has_begun(&self) {
        self.has_begun.store(true, Ordering::SeqCst);
    }

    /// The last line of an error, if there was one.
    pub fn last_error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why a process has ended without a result.
    pub fn error(&self, status: ExitStatus, input: &Map<String, Value>) -> EngineError {
        let said = self.last_error();
        let set = input.get("input_images").and_then(Value::as_str).unwrap_or_default();
        let failure = match (status.code(), said) {
            (Some(2), Some(error)) => Failure::BadInput(error),
            (_, Some(error)) => Failure::Failed(error),
            (Some(code), None) => Failure::Failed(format!("the process has ended with the exit code {code}")),
            (None, None) => Failure::Failed(format!(
                "the process was ended by the system ({status}): was there enough memory?"
            )),
        };
        engine_error(failure, &TrainInput::schema(), &[("input_images", Path::new(set))])
    }
}

/// The steps in a line of progress: ` 42%|████  | 21/50 …`.
fn steps(line: &str) -> Option<(usize, usize)> {
    let (percent, rest) = line.split_once("%|")?;
    percent.trim().parse::<u8>().ok()?;
    let (done, total) = rest.split_once("| ")?.1.split(' ').next()?.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the lines that tell how far the preprocessing is.
    #[test]
    fn lines_of_progress() {
        let line = crate::progress::line(21, 50, "[00:03<01:12, 1.51s/step]");
        assert_eq!(steps(&line), Some((21, 50)));
        assert_eq!(steps("a%|b| 1/2 c"), None);
        assert_eq!(steps("validation loss 0.1 before the first step"), None);
    }
}
