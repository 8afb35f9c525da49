//! The `calotype` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    calotype::main()
}
