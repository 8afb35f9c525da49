//! Logs on stderr, in the form of the errors: `warning: …`.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Shows messages up to `level` on stderr.
pub fn start(level: Level) {
    // With a closed terminal, a message about the message that could not be written would panic.
    let logs = tracing_subscriber::fmt().log_internal_errors(false);
    logs.with_writer(std::io::stderr).with_max_level(level).event_format(Plain).init();
}

/// The warnings of some work, instead of on stderr.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<u8>>>);

impl Warnings {
    /// Runs `work`, and keeps the warnings of this thread.
    pub fn of<R>(&self, work: impl FnOnce() -> R) -> R {
        let to = self.clone();
        let logs = tracing_subscriber::fmt().log_internal_errors(false).with_max_level(Level::WARN);
        let logs = logs.with_writer(move || to.clone()).event_format(Plain).finish();
        tracing::subscriber::with_default(logs, work)
    }

    /// The lines since the last call.
    pub fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).lines().map(String::from).collect()
    }
}

impl Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            _ => "debug: ",
        };
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        writeln!(to, "{level}{}", clean(&text).replace('\n', " "))
    }
}

/// Text without characters that a terminal obeys. Control characters (except newlines and tabs) and characters that change the
/// direction of writing become `\u{1b}` and the like. Messages on stderr may quote somebody else's file.
pub fn clean(text: &str) -> String {
    let obeyed = |c: char| match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) { clean.extend(c.escape_unicode()) } else { clean.push(c) }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects terminals: no text from a file moves the cursor, sets the title or reverses the line. Other scripts are not
    /// changed.
    #[test]
    fn terminals_are_told_nothing() {
        let hostile = "a\u{1b}]0;title\u{7}\r\u{9b}2J\u{202e}b";
        assert_eq!(clean(hostile), "a\\u{1b}]0;title\\u{7}\\u{d}\\u{9b}2J\\u{202e}b");
        let plain = "caf\u{e9} 猫 🐈\n\tשלום";
        assert_eq!(clean(plain), plain);
    }
}
