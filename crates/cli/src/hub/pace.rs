//! The least speed of an answer. A connection that sends single bytes is never silent, and would keep a fetch waiting forever.

use std::io::{Error, ErrorKind, Read};
use std::time::{Duration, Instant};

/// The least bytes in a window, which is 1 kB per second. A modem was faster.
const LEAST: u64 = 60_000;
const WINDOW: Duration = Duration::from_secs(60);
/// The longest time of an answer of unknown length: a listing, or a mirror's config.
pub const SHORT: Duration = Duration::from_secs(300);

/// A reader that fails if a window has too few bytes, or the whole answer takes too long.
pub struct Paced<R, C> {
    inner: R,
    /// The time since the answer began.
    clock: C,
    limit: Option<Duration>,
    /// The beginning of the window, and the bytes in it.
    began: Duration,
    came: u64,
}

/// The body of an answer, which may take at most `limit` in total, if there is a limit.
pub fn paced<R: Read>(inner: R, limit: Option<Duration>) -> Paced<R, impl Fn() -> Duration> {
    let start = Instant::now();
    Paced::new(inner, limit, move || start.elapsed())
}

impl<R: Read, C: Fn() -> Duration> Paced<R, C> {
    fn new(inner: R, limit: Option<Duration>, clock: C) -> Self {
        let began = clock();
        Self { inner, clock, limit, began, came: 0 }
    }
}

impl<R: Read, C: Fn() -> Duration> Read for Paced<R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = self.inner.read(buffer)?;
        let now = (self.clock)();
        let slow = |what: String| Err(Error::new(ErrorKind::TimedOut, what));
        if let Some(limit) = self.limit.filter(|limit| now > *limit) {
            return slow(format!("too slow: not at its end after {limit:?}"));
        }
        self.came += count as u64;
        if now - self.began >= WINDOW {
            if self.came < LEAST {
                return slow(format!("too slow: expected {LEAST} bytes in {WINDOW:?}, found {}", self.came));
            }
            (self.began, self.came) = (now, 0);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A connection that sends `bytes` per second, by the clock `seconds`.
    fn line(bytes: usize, seconds: &Cell<u64>) -> impl Read {
        struct Line<'a>(usize, &'a Cell<u64>);
        impl Read for Line<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
                self.1.set(self.1.get() + 1);
                Ok(self.0.min(buffer.len()))
            }
        }
        Line(bytes, seconds)
    }

    /// The seconds after which a connection that sends `bytes` per second for an hour is given up, and the error.
    fn ended(bytes: usize, limit: Option<Duration>) -> (u64, Option<String>) {
        let seconds = Cell::new(0);
        let mut paced = Paced::new(line(bytes, &seconds), limit, || Duration::from_secs(seconds.get()));
        let mut buffer = [0; 1 << 14];
        let error = (0..3600).find_map(|_| paced.read(&mut buffer).err()).map(|e| e.to_string());
        drop(paced);
        (seconds.get(), error)
    }

    /// Protects the least speed: a hub that sends single bytes is given up after a window, a slow one is not. A short answer
    /// has a limit of its own, however fast it is.
    #[test]
    fn lines_that_drip() {
        assert_eq!(ended(1, None), (60, Some("too slow: expected 60000 bytes in 60s, found 60".into())));
        assert_eq!(ended(999, None).0, 60);
        assert_eq!(ended(1000, None), (3600, None));
        assert_eq!(ended(1 << 14, Some(SHORT)), (301, Some("too slow: not at its end after 300s".into())));
        assert_eq!(ended(1, Some(Duration::from_secs(5))).0, 6);
    }
}
