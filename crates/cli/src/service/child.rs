//! The process of a job: its signals and its end.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};

/// A process, which is killed when this is dropped. It also ends when this process does: its stdin is closed then.
pub struct Child {
    process: std::process::Child,
    rests: bool,
    is_ending: bool,
}

impl Child {
    /// Starts a program. What it writes to stderr can be read.
    ///
    /// # Errors
    /// The system does not start it.
    pub fn start(program: &Path, args: &[OsString]) -> io::Result<(Child, ChildStderr)> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C in a terminal is for this process, which decides what becomes of the other.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command.spawn()?;
        let stderr = process.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((Child { process, rests: false, is_ending: false }, stderr))
    }

    /// How the process has ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Stops the process where it is, or lets it go on.
    pub fn rest(&mut self, rests: bool) {
        if rests != self.rests && !self.is_ending {
            self.rests = rests;
            signal::send(&self.process, if rests { signal::STOP } else { signal::CONT });
        }
    }

    /// Asks the process to end after its present step, with a checkpoint. Where there are no signals to ask by, the process is killed.
    pub fn end(&mut self) {
        if cfg!(not(unix)) {
            return self.kill();
        }
        self.rest(false);
        if !std::mem::replace(&mut self.is_ending, true) {
            signal::send(&self.process, signal::TERM);
        }
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        let _ = self.process.kill(); // it may have ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        let _ = self.process.wait();
    }
}

#[cfg(unix)]
mod signal {
    use rustix::process::{Pid, Signal, kill_process};

    pub const STOP: Signal = Signal::STOP;
    pub const CONT: Signal = Signal::CONT;
    pub const TERM: Signal = Signal::TERM;

    /// Sends a signal to a process whose end has not been waited for, so that its number is still its own.
    pub fn send(process: &std::process::Child, signal: Signal) {
        if let Err(e) = kill_process(Pid::from_child(process), signal) {
            tracing::warn!("a job's process: {e}");
        }
    }
}

/// There are no such signals: processes do not rest, and end with this one alone.
#[cfg(not(unix))]
mod signal {
    pub const STOP: () = ();
    pub const CONT: () = ();
    pub const TERM: () = ();

    pub fn send(_process: &std::process::Child, _signal: ()) {}
}
