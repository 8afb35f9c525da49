//! Signals that end a command: Ctrl-C, SIGTERM (`docker stop`, `systemctl stop`, a shutdown, a batch system) and SIGHUP (a
//! closed terminal). The first signal asks the work to stop at its next step. A second Ctrl-C ends the process. A second
//! SIGTERM or SIGHUP does not, because shells and `timeout` send each of them twice.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Once};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// The exit code of the last signal; 0 if there was none.
static EXIT_CODE: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Installs the signal handlers. A second call has no effect, because a command may run another.
///
/// # Errors
/// The system refuses a handler.
pub fn install() -> Result<(), std::io::Error> {
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| result = register());
    result
}

fn register() -> Result<(), std::io::Error> {
    // Registered before the flag that the same signal sets, so that the second Ctrl-C ends the process, not the first.
    flag::register_conditional_shutdown(SIGINT, exit_code_of(SIGINT), ASKED.clone())?;
    let signals = [
        SIGINT,
        SIGTERM,
        #[cfg(unix)]
        signal_hook::consts::SIGHUP,
    ];
    for signal in signals {
        // `nohup` makes the process ignore SIGHUP, which must stay so.
        if signal != SIGINT && is_ignored(signal) {
            continue;
        }
        flag::register_usize(signal, EXIT_CODE.clone(), exit_code_of(signal) as usize)?;
        flag::register(signal, ASKED.clone())?;
    }
    Ok(())
}

/// Has a write beyond the limit of a file's size (`ulimit -f`, systemd's `LimitFSIZE`) fail, as on a full disk, instead of ending the process.
///
/// # Errors
/// The system refuses the handler.
pub fn outlive_file_limits() -> Result<(), std::io::Error> {
    // A handler that does nothing of use: with one, the write fails.
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    Ok(())
}

/// Ends the process when stdin is closed: the process at its other end is gone, and nobody would get a result. What is being written stays
/// incomplete under another name.
pub fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(exit_code_of(1)); // SIGHUP
    });
}

/// The exit code that shells use.
fn exit_code_of(signal: i32) -> i32 {
    128 + signal
}

/// Whether the process was started with this signal ignored. Only Linux has this in a file; on other systems, false.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Whether a signal has asked the work to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// The same in the form that progress callbacks return.
pub fn flow() -> ControlFlow<()> {
    if asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The exit code of a command that a signal ended: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
pub fn exit_code() -> u8 {
    u8::try_from(EXIT_CODE.load(Ordering::SeqCst)).ok().filter(|code| *code != 0).unwrap_or(130)
}
