//! The environment variables that calotype has: what each says, and whether what is set can be meant.

use std::ffi::OsString;
use std::fmt::Write;

use calotype_sdxl::request::schema::nearest;
use calotype_sdxl::train::memory;
use calotype_tensor::cpu;

use crate::failure::Failure;

/// What the names of calotype's own variables begin with.
const PREFIX: &str = "CALOTYPE_";

/// Every variable, with what it says. A new one is a row.
const VARIABLES: &[(&str, &str)] = &[
    ("CALOTYPE_MODEL", "The model where --model is not given: a folder or a name"),
    ("CALOTYPE_MEMORY", "The bytes of memory that a training may take, such as 16000000000"),
    (
        "CALOTYPE_ISA",
        "The instruction set to compute with, such as portable or avx2 [default: the CPU's best]",
    ),
];

/// The variables, for the end of the help.
pub fn help() -> String {
    let width = VARIABLES.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = "Environment variables:\n".to_string();
    for (name, says) in VARIABLES {
        let _ = writeln!(text, "  {name:width$}  {says}"); // a String takes all
    }
    text
}

/// Refuses a name that begins with `CALOTYPE_` and is not in [`VARIABLES`], and a value that a variable does not take.
/// `names` are the names of all variables that are set.
///
/// # Errors
/// One line that names the variable.
pub fn check(names: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let mut own = names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(PREFIX));
    if let Some(name) = own.find(|name| VARIABLES.iter().all(|(known, _)| known != name)) {
        // The prefix is alike in all names: only what follows it can be misspelt.
        let known = VARIABLES.iter().filter_map(|(known, _)| known.strip_prefix(PREFIX));
        let hint =
            nearest(&name[PREFIX.len()..], known).map(|known| format!(", did you mean {PREFIX}{known}?"));
        let hint = hint.unwrap_or_default();
        return Err(Failure::BadInput(format!("{name}: unknown environment variable{hint}")));
    }
    cpu::try_isa().map_err(|e| Failure::BadInput(e.to_string()))?;
    memory::stated().map_err(Failure::BadInput)?;
    Ok(())
}
