//! The ways in which a command fails.

use std::path::Path;
use std::process::ExitCode;

use calotype_request::InputError;
use calotype_sdxl::ArgumentError;

use crate::interrupt;

/// The reason why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The caller can fix it: an option, a field or a file is invalid.
    BadInput(String),
    /// Anything else.
    Failed(String),
    /// Ctrl-C, SIGTERM or SIGHUP.
    Interrupted,
}

impl Failure {
    /// A file or folder that the system could not read or write.
    pub fn io(path: &Path, e: &std::io::Error) -> Failure {
        Failure::Failed(format!("{}: {e}", path.display()))
    }

    /// The system does not let the process handle signals.
    pub fn signals(e: std::io::Error) -> Failure {
        Failure::Failed(format!("cannot handle signals: {e}"))
    }

    /// The same failure with more words at its end.
    pub fn with(self, hint: &str) -> Failure {
        match self {
            Failure::BadInput(what) => Failure::BadInput(format!("{what} {hint}")),
            Failure::Failed(what) => Failure::Failed(format!("{what} {hint}")),
            Failure::Interrupted => Failure::Interrupted,
        }
    }

    /// The message for the user, always on one line.
    pub fn line(&self) -> String {
        match self {
            Failure::BadInput(_) | Failure::Failed(_) => format!("error: {}", self.problem()),
            Failure::Interrupted => self.problem(),
        }
    }

    /// What is wrong, on one line.
    pub fn problem(&self) -> String {
        match self {
            Failure::BadInput(what) | Failure::Failed(what) => {
                let words: Vec<&str> = what.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
                words.join(" ")
            }
            Failure::Interrupted => "interrupted".into(),
        }
    }

    /// The exit code of the process.
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
            // Clients of the service are told the field.
            Error::Dataset(e) if e.is_of_file() => Failure::BadInput(format!("input_images: {e}")),
            Error::Dataset(_) | Error::Checkpoint(_) | Error::RunDir { .. } => {
                Failure::BadInput(e.to_string())
            }
        }
    }
}
