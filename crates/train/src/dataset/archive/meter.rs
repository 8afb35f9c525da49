//! Counts bytes while they are unpacked. The sizes in headers are not trusted.

use std::cell::Cell;
use std::io::{Error, Read};
use std::path::Path;

use crate::dataset::DatasetError;
use calotype_models::shorten;

/// The most bytes to which all files of a set may unpack together.
pub(super) struct Meter {
    limit: u64,
    left: Cell<u64>,
    exceeded: Cell<bool>,
}

impl Meter {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, left: Cell::new(limit), exceeded: Cell::new(false) }
    }

    /// A reader that counts its bytes, and fails if they exceed the limit.
    pub(super) fn count<R: Read>(&self, inner: R) -> Metered<'_, R> {
        Metered { inner, meter: self }
    }

    /// Counts bytes that will be unpacked.
    pub(super) fn take(&self, bytes: u64) -> Result<(), Error> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => self.left.set(left),
            None => {
                self.exceeded.set(true);
                return Err(Error::other("too big"));
            }
        }
        Ok(())
    }

    /// The error of an archive that cannot be read at `what`, possibly because of the limit.
    pub(super) fn error(&self, path: &Path, what: &str, error: &Error) -> DatasetError {
        if self.exceeded.get() {
            return DatasetError::TooBig { limit: self.limit };
        }
        DatasetError::open(path, format!("{}: {}", shorten(what), shorten(&error.to_string())))
    }
}

/// A reader that counts its bytes with a [`Meter`].
pub(super) struct Metered<'a, R> {
    inner: R,
    meter: &'a Meter,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let n = self.inner.read(buffer)?;
        self.meter.take(n as u64)?;
        Ok(n)
    }
}
