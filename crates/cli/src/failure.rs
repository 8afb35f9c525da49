//! How a command ends when it does not succeed.

use std::path::Path;
use std::process::ExitCode;

use calotype_sdxl::request::InputError;

use crate::interrupt;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The caller's to mend: an option, a field or a file.
    BadInput(String),
    /// Anything else.
    Failed(String),
    /// Ctrl-C, SIGTERM or SIGHUP.
    Interrupted,
}

impl Failure {
    /// A file or folder that the system did not give or take.
    pub fn io(path: &Path, e: &std::io::Error) -> Failure {
        Failure::Failed(format!("{}: {e}", path.display()))
    }

    /// What the user reads: always exactly one line.
    pub fn line(&self) -> String {
        match self {
            Failure::BadInput(what) | Failure::Failed(what) => {
                let words: Vec<&str> = what.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
                format!("error: {}", words.join(" "))
            }
            Failure::Interrupted => "interrupted".into(),
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Failed(_) => 1,
            Failure::BadInput(_) => 2,
            Failure::Interrupted => interrupt::exit_code(),
        })
    }
}

impl From<InputError> for Failure {
    fn from(e: InputError) -> Failure {
        Failure::BadInput(e.to_string())
    }
}

impl From<calotype_sdxl::Error> for Failure {
    fn from(e: calotype_sdxl::Error) -> Failure {
        match e.exit_code() {
            2 => Failure::BadInput(e.to_string()),
            130 => Failure::Interrupted,
            _ => Failure::Failed(e.to_string()),
        }
    }
}
