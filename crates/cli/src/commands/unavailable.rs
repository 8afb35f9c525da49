//! Commands that are planned, and say so.

use clap::{Arg, Command};

use crate::failure::Failure;

/// Not in the help; takes whatever is given, so that the answer is the same.
pub fn options(command: Command) -> Command {
    let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    command.hide(true).arg(rest)
}

/// The one answer.
pub fn refuse(name: &str) -> Result<(), Failure> {
    Err(Failure::BadInput(format!("{name}: not available yet in calotype {}", env!("CARGO_PKG_VERSION"))))
}
