//! The parts of every command line: the verbosity, and errors in one line.

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use tracing::Level;

use crate::failure::Failure;
use crate::fields;

/// How much is printed to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Progress, the seed and warnings.
    Normal,
    /// Also the current work.
    Verbose,
    /// Details.
    Debug,
}

impl Verbosity {
    /// The verbosity that `-q`, `-v` or a training's `verbose` selects.
    pub fn of(matches: &ArgMatches) -> Verbosity {
        let command = matches.subcommand().map_or(matches, |(_, matches)| matches);
        match (matches.get_flag("quiet"), matches.get_count("verbose")) {
            (true, _) => Verbosity::Quiet,
            (false, 0) if fields::verbose(command) => Verbosity::Verbose,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::Debug,
        }
    }

    /// The least important level that is logged.
    pub fn level(self) -> Level {
        match self {
            Verbosity::Quiet => Level::ERROR,
            Verbosity::Normal => Level::WARN,
            Verbosity::Verbose => Level::INFO,
            Verbosity::Debug => Level::DEBUG,
        }
    }
}

/// Converts clap's errors to one line, without usage and tips.
pub fn in_one_line(e: &clap::Error) -> Failure {
    let text = |kind| match e.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let asked =
        text(ContextKind::InvalidArg).or_else(|| text(ContextKind::InvalidSubcommand)).unwrap_or_default();
    let nearest = text(ContextKind::SuggestedArg).or_else(|| text(ContextKind::SuggestedSubcommand));
    let hint = nearest.map(|n| format!(", did you mean {n}?")).unwrap_or_default();
    Failure::BadInput(match e.kind() {
        ErrorKind::UnknownArgument if !asked.starts_with('-') => format!("unexpected argument {asked:?}"),
        ErrorKind::UnknownArgument => format!("{asked}: unknown option{hint}"),
        ErrorKind::InvalidSubcommand => format!("{asked}: unknown command{hint}"),
        _ => {
            let full = e.to_string();
            let said = full.split("\n\n").next().unwrap_or(&full);
            said.strip_prefix("error: ").unwrap_or(said).to_string()
        }
    })
}
