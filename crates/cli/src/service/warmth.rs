//! How much stays in memory between predictions.

use std::sync::atomic::{AtomicUsize, Ordering};

use calotype_sdxl::Pipeline;
use calotype_train::forecast::memory;

use crate::failure::Failure;

/// The part of the memory which the system has left at the start that networks may keep, if nobody says how much.
const PART: f64 = 0.5;
/// The same in bytes, where the system does not say what it has.
const BYTES: f64 = 8e9;

/// The memory of networks that stay for later predictions.
pub struct Warmth {
    /// The bytes for each model that is open.
    bytes: u64,
    /// Whether the last prediction's network goes as well, if it takes more.
    closes: bool,
    /// The trainings and preparations that need memory now.
    trainings: AtomicUsize,
}

/// A training or a preparation needs memory until this is dropped.
#[must_use]
pub struct Cooled<'a>(&'a AtomicUsize);

impl Drop for Cooled<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Warmth {
    /// For `workers` models that are open at a time. `given`: the bytes for all of them.
    ///
    /// # Errors
    /// `CALOTYPE_MEMORY` is not a number of bytes.
    pub fn new(given: Option<u64>, workers: u16) -> Result<Warmth, Failure> {
        let all = match given {
            Some(bytes) => bytes,
            None => memory::available().map_err(Failure::BadInput)?.map_or(BYTES, |left| PART * left) as u64,
        };
        Ok(Warmth {
            bytes: all / u64::from(workers.max(1)),
            closes: given.is_some(),
            trainings: AtomicUsize::new(0),
        })
    }

    /// A training or a preparation begins.
    pub fn cool(&self) -> Cooled<'_> {
        self.trainings.fetch_add(1, Ordering::SeqCst);
        Cooled(&self.trainings)
    }

    /// Tells a pipeline how much it may keep from now on.
    pub fn limit(&self, pipeline: &Pipeline) {
        let trains = self.trainings.load(Ordering::SeqCst) > 0;
        pipeline.keep(if trains { 0 } else { self.bytes });
    }

    /// Whether a pipeline keeps so much that it is to be closed.
    pub fn is_exceeded(&self, pipeline: &Pipeline) -> bool {
        self.closes && pipeline.kept_bytes() > self.bytes
    }
}
