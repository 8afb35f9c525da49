//! Ctrl-C: the first asks the work to stop at its next step, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Takes Ctrl-C over from the system.
///
/// # Errors
/// The system refuses a handler.
pub fn install() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .map_err(|e| Failure::Failed(format!("cannot handle Ctrl-C: {e}")))
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
