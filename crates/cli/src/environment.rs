//! The environment variables of calotype: their descriptions, and checks of their values.

use std::ffi::OsString;
use std::fmt::Write;

use calotype_request::nearest;
use calotype_tensor::cpu;
use calotype_train::forecast::memory;

use crate::failure::Failure;

/// The beginning of the names of calotype's own variables.
const PREFIX: &str = "CALOTYPE_";

/// Every variable, with its description. A new variable is a row.
const VARIABLES: &[(&str, &str)] = &[
    ("CALOTYPE_MODEL", "The model where --model is not given: a folder or a name"),
    ("CALOTYPE_DATABASE", "The database of serve and worker where --database is not given"),
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
        let _ = writeln!(text, "  {name:width$}  {says}"); // writing to a String does not fail
    }
    text
}

/// Refuses an unknown name that begins with `CALOTYPE_`, and invalid values of known variables. `set` has all variables that
/// are set. Kubernetes sets variables in each container for a Service whose name begins with `calotype`; these are not for this
/// program, and are accepted.
///
/// # Errors
/// A variable is unknown or invalid. The message is one line that names the variable.
pub fn check(set: impl Iterator<Item = (OsString, OsString)>) -> Result<(), Failure> {
    let own = set.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let own = own.filter(|(name, _)| name.starts_with(PREFIX));
    let mut unknown = own.filter(|(name, _)| VARIABLES.iter().all(|(known, _)| known != name));
    if let Some((name, _)) = unknown.find(|(name, value)| !is_of_a_service(name, &value.to_string_lossy())) {
        // All names have the same prefix, so only the rest is compared.
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

/// Whether Kubernetes sets such a variable for a Service: `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP` (a port's
/// name), `…_PORT` and `…_PORT_80_TCP`, alone or with `_PROTO`, `_PORT` or `_ADDR`. The value of `…_PORT` must be an address,
/// which a misspelt setting of this program would not be.
fn is_of_a_service(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    let words: Vec<&str> = name.split('_').collect();
    let is_number = |word: &str| word.parse::<u16>().is_ok();
    match words.as_slice() {
        [.., "PORT", number, "TCP" | "UDP" | "SCTP"]
        | [.., "PORT", number, "TCP" | "UDP" | "SCTP", "PROTO" | "PORT" | "ADDR"] => is_number(number),
        [.., "PORT"] => value.contains("://"),
        _ => false,
    }
}

/// Checks `RAYON_NUM_THREADS`, the number of threads if nothing else sets it. The library that reads it ignores text that is
/// not a number.
///
/// # Errors
/// The variable is set and is not a number of threads. 0 means the number of processors.
pub fn threads(set: Option<OsString>) -> Result<(), Failure> {
    let Some(text) = set.filter(|text| !text.is_empty()) else { return Ok(()) };
    let text = text.to_string_lossy();
    match text.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::BadInput(format!(
            "RAYON_NUM_THREADS: expected a number of threads from 0 to {}, found {:?}",
            u16::MAX,
            text.chars().take(80).collect::<String>()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects commands from variables that Kubernetes sets for a Service called calotype or calotype-web: they are accepted.
    /// Any other name with the prefix is an error, and so is a plain port number.
    #[test]
    fn variables_of_services() {
        let check = |name: &str, value: &str| check([(name.into(), value.into())].into_iter());
        for (name, value) in [
            ("CALOTYPE_SERVICE_HOST", "10.0.0.11"),
            ("CALOTYPE_SERVICE_PORT", "5000"),
            ("CALOTYPE_SERVICE_PORT_HTTP", "5000"),
            ("CALOTYPE_PORT", "tcp://10.0.0.11:5000"),
            ("CALOTYPE_PORT_5000_TCP", "tcp://10.0.0.11:5000"),
            ("CALOTYPE_PORT_5000_TCP_PROTO", "tcp"),
            ("CALOTYPE_PORT_5000_TCP_PORT", "5000"),
            ("CALOTYPE_PORT_5000_TCP_ADDR", "10.0.0.11"),
            ("CALOTYPE_PORT_53_UDP_ADDR", "10.0.0.11"),
            ("CALOTYPE_WEB_SERVICE_HOST", "10.0.0.11"),
            ("CALOTYPE_WEB_PORT_80_TCP", "tcp://10.0.0.11:80"),
        ] {
            assert!(check(name, value).is_ok(), "{name}");
        }
        for (name, value) in [
            ("CALOTYPE_PORT", "8080"),
            ("CALOTYPE_HOST", "10.0.0.11"),
            ("CALOTYPE_SERVICE", "x"),
            ("CALOTYPE_PORT_TCP", "x"),
            ("CALOTYPE_PORT_X_TCP", "x"),
            ("CALOTYPE_PORT_80_TCP_MODE", "x"),
            ("CALOTYPE_MODLE", "x"),
            ("CALOTYPE_", "x"),
        ] {
            let line = check(name, value).expect_err("refused").line();
            assert!(line.contains(&format!("{name}: unknown environment variable")), "{line}");
        }
    }
}
