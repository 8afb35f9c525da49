//! Trainings: requests → `calotype train` in a run's folder, as a process of its own.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use calotype_request::TrainInput;
use calotype_request::schema::{Field, FieldType};
use calotype_serve::engine::{EngineError, Progress, Stop, Trained, Work};
use calotype_train::run::{RESULT, SETTINGS};
use serde_json::{Map, Value};

use super::child::Child;
use super::engine_error;
use super::follow::Follow;
use crate::failure::Failure;

/// How often the process and its folder are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often samples are made, in parts of a run, and the least steps between them.
const SAMPLES: u64 = 5;
const SAMPLE_STEPS: u64 = 20;
/// The files beside the weights that are kept.
const FILES: [&str; 3] = ["loss.png", "contact_sheet.png", "dataset.txt"];
/// What goes on before the first step, as the program says it.
const STAGES: [&str; 4] = [
    "finding what matters in the pictures",
    "upscaling small pictures",
    "writing captions",
    "encoding the pictures",
];
/// The beginning of a line that is for users of the command line.
const RESUME: &str = "resume with: ";

/// Trains.
pub struct Trainings {
    /// This program.
    program: PathBuf,
    /// The options of a run that begins: model, networks, dtype, …
    options: Vec<OsString>,
    /// Those of a run that goes on, whose folder has the others: where the model is now, and how many threads there are.
    options_of_resumed: Vec<OsString>,
}

impl Trainings {
    /// # Errors
    /// The system does not say where this program is.
    pub fn new(options: Vec<OsString>, options_of_resumed: Vec<OsString>) -> Result<Trainings, Failure> {
        let program =
            std::env::current_exe().map_err(|e| Failure::Failed(format!("the program's path: {e}")))?;
        Ok(Trainings { program, options, options_of_resumed })
    }

    /// Trains in a run's folder, which is empty, or has a run that goes on.
    ///
    /// # Errors
    /// The request is wrong, the training fails, or `work` stops it.
    pub fn train(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Trained, EngineError> {
        check_texts(input)?;
        let failed = |e: io::Error| EngineError::Failed(e.to_string());
        let texts = tempfile::Builder::new().prefix("texts-").tempdir_in(folder.parent().unwrap_or(folder));
        let texts = texts.map_err(failed)?;
        let args = self.args(input, folder, texts.path()).map_err(failed)?;
        let (child, stderr) = Child::start(&self.program, &args).map_err(failed)?;
        let (mut follow, lines) = (Follow::new(folder), Lines::default());
        let (status, stop) = thread::scope(|scope| {
            let reading = scope.spawn(|| lines.read(BufReader::new(stderr), work));
            let watched = watch(scope, child, &mut follow, &lines, folder, work);
            let _ = reading.join(); // a panic has been printed
            watched
        })
        .map_err(failed)?;
        follow.tell(work);
        match stop {
            Some(Stop::Cancel) => return Err(EngineError::Stopped(Stop::Cancel)),
            Some(Stop::Drain) if !status.success() => {
                work.checkpoint(folder);
                return Err(EngineError::Stopped(Stop::Drain));
            }
            _ => {}
        }
        if !status.success() {
            return Err(lines.error(status, input));
        }
        let files = FILES.iter().map(|name| folder.join(name)).filter(|path| path.is_file());
        let mut metrics = Map::new();
        if let Some((steps, loss)) = follow.last_loss() {
            metrics.extend([("train_steps".into(), steps.into()), ("loss".into(), loss.into())]);
        }
        Ok(Trained { weights: folder.join(RESULT), files: files.collect(), metrics })
    }

    /// The command line.
    fn args(&self, input: &Map<String, Value>, folder: &Path, texts: &Path) -> io::Result<Vec<OsString>> {
        let resumed = folder.join(SETTINGS).is_file();
        let mut args: Vec<OsString> = vec!["train".into(), "--end-with-stdin".into()];
        args.extend([if resumed { "--resume" } else { "--run-dir" }.into(), folder.into()]);
        args.extend(if resumed { &self.options_of_resumed } else { &self.options }.iter().cloned());
        if !resumed {
            let given = input.get("max_train_steps").and_then(Value::as_u64);
            let steps = given.unwrap_or(TrainInput::default().max_train_steps as u64);
            args.push(format!("--sample-every={}", (steps / SAMPLES).max(SAMPLE_STEPS)).into());
        }
        let schema = TrainInput::schema();
        // The others are in the folder of a run that goes on.
        let is_given =
            |field: &&Field| !resumed || ["input_images", "verbose"].contains(&field.name.as_str());
        for field in schema.fields().iter().filter(is_given) {
            if let Some(value) = input.get(&field.name).filter(|value| !value.is_null()) {
                args.extend(arg(field, value, texts)?);
            }
        }
        Ok(args)
    }
}

/// Refuses texts with a character that no text file has.
///
/// # Errors
/// The first field with one.
pub fn check_texts(input: &Map<String, Value>) -> Result<(), EngineError> {
    let has_null = |value: &Value| value.as_str().is_some_and(|text| text.contains('\0'));
    match input.iter().find(|(_, value)| has_null(value)) {
        Some((field, _)) => {
            let problem = "expected a text without the character U+0000, found one with it".into();
            Err(EngineError::Input { field: field.clone(), problem })
        }
        None => Ok(()),
    }
}

/// The arguments for a field. A text goes by way of a file, which may be as long as any text and have any characters.
fn arg(field: &Field, value: &Value, texts: &Path) -> io::Result<Vec<OsString>> {
    let flag = |value: &str| vec![OsString::from(format!("--{}={value}", field.name.replace('_', "-")))];
    match (field.kind(), value) {
        (FieldType::Text, Value::String(text)) if field.is_file() => Ok(flag(text)),
        (FieldType::Text, Value::String(text)) => {
            let path = texts.join(&field.name);
            // The mark and the line's end are taken off again.
            fs::write(&path, format!("\u{feff}{text}\r\n"))?;
            Ok(vec!["-i".into(), format!("{}=@{}", field.name, path.display()).into()])
        }
        (_, value) => Ok(flag(&value.to_string())),
    }
}

/// Watches a training until its process has ended. Also says why it was to stop, if it was.
fn watch<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    mut child: Child,
    follow: &mut Follow,
    lines: &Lines,
    folder: &'scope Path,
    work: &'scope dyn Work,
) -> io::Result<(ExitStatus, Option<Stop>)> {
    let mut storing: Option<ScopedJoinHandle<()>> = None;
    let mut stop = None;
    loop {
        if let Some(status) = child.ended()? {
            return Ok((status, stop));
        }
        stop = work.stop().or(stop);
        match stop {
            Some(Stop::Cancel) => child.kill(),
            Some(Stop::Drain) => child.end(),
            None => child.rest(work.is_paused()),
        }
        follow.tell(work);
        if storing.as_ref().is_none_or(ScopedJoinHandle::is_finished) && follow.has_new_checkpoint() {
            lines.has_begun.store(true, Ordering::SeqCst);
            storing = Some(scope.spawn(move || work.checkpoint(folder)));
        }
        thread::sleep(LOOK);
    }
}

/// What the process says.
#[derive(Default)]
struct Lines {
    /// The last line of an error.
    error: Mutex<Option<String>>,
    /// Whether the run has begun, so that its folder tells how far it is.
    has_begun: AtomicBool,
}

impl Lines {
    fn read(&self, stderr: impl BufRead, work: &dyn Work) {
        let mut stage = "preprocessing";
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if line.starts_with(RESUME) {
                continue;
            }
            if let Some(error) = line.strip_prefix("error: ") {
                *self.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error.into());
            }
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

    /// Why a process has ended without a result.
    fn error(&self, status: ExitStatus, input: &Map<String, Value>) -> EngineError {
        let said = self.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let set = input.get("input_images").and_then(Value::as_str).unwrap_or_default();
        let failure = match (status.code(), said) {
            (Some(2), Some(error)) => Failure::BadInput(error),
            (_, Some(error)) => Failure::Failed(error),
            (Some(code), None) => {
                Failure::Failed(format!("the training has ended with the exit code {code}"))
            }
            (None, None) => Failure::Failed(format!(
                "the training was ended by the system ({status}): was there enough memory?"
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
    use serde_json::json;

    use super::*;

    /// Protects the lines that tell how far the preprocessing is.
    #[test]
    fn lines_of_progress() {
        let line = crate::progress::line(21, 50, "[00:03<01:12, 1.51s/step]");
        assert_eq!(steps(&line), Some((21, 50)));
        assert_eq!(steps("a%|b| 1/2 c"), None);
        assert_eq!(steps("validation loss 0.1 before the first step"), None);
    }

    /// Protects the files of the worker's machine: a text that looks like the name of a file stays a text, whatever is in it; the
    /// command line reads it as it was.
    #[test]
    fn texts_stay_texts() {
        let here = tempfile::tempdir().expect("a folder");
        let schema = TrainInput::command_line_schema();
        let texts = ["@/etc/passwd", "", "-x", "a\r", "a\n", "\u{feff}a", "猫"];
        for text in texts.into_iter().map(String::from).chain(["long ".repeat(100_000)]) {
            let field = schema.field("caption_prefix").expect("a field");
            let args = arg(field, &json!(text), here.path()).expect("written");
            let command = crate::fields::options(clap::Command::new("train"), &schema);
            let matches =
                command.try_get_matches_from([vec!["train".into()], args].concat()).expect("arguments");
            let given = crate::fields::given(&schema, &matches).expect("read");
            assert_eq!(given["caption_prefix"], json!(text));
        }
        let input = json!({ "caption_prefix": "a\0b" });
        let refused = check_texts(input.as_object().expect("an object")).expect_err("refused");
        assert!(refused.to_string().starts_with("caption_prefix: expected "), "{refused}");
    }
}
