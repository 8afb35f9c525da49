//! How a command ends when it does not succeed.

use std::path::Path;
use std::process::ExitCode;

use calotype_request::InputError;
use calotype_sdxl::ArgumentError;

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

    /// Signals that the system does not let the process handle.
    pub fn signals(e: std::io::Error) -> Failure {
        Failure::Failed(format!("cannot handle signals: {e}"))
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

impl From<ArgumentError> for Failure {
    fn from(e: ArgumentError) -> Failure {
        Failure::BadInput(e.to_string())
    }
}

impl From<calotype_models::Error> for Failure {
    fn from(e: calotype_models::Error) -> Failure {
        Failure::BadInput(e.to_string())
    }
}

impl From<calotype_sdxl::Error> for Failure {
    fn from(e: calotype_sdxl::Error) -> Failure {
        use calotype_sdxl::Error;
        match e {
            Error::Interrupted => Failure::Interrupted,
            Error::NotFinite => Failure::Failed(e.to_string()),
            e => Failure::BadInput(e.to_string()),
        }
    }
}

impl From<calotype_train::Error> for Failure {
    fn from(e: calotype_train::Error) -> Failure {
        use calotype_train::Error;
        match e {
            Error::Sdxl(e) => e.into(),
            Error::Interrupted => Failure::Interrupted,
            Error::Io { .. } | Error::Diverged { .. } => Failure::Failed(e.to_string()),
            Error::Dataset(_) | Error::Checkpoint(_) | Error::RunDir { .. } => {
                Failure::BadInput(e.to_string())
            }
        }
    }
}
