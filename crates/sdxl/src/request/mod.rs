//! Requests: what a user may ask for, declared once, and resolved into plans at the door.
//!
//! [`PredictInput`] and [`TrainInput`] are the wire forms: a field's name, type, default, choices, range and
//! description stand there and nowhere else. Their JSON [`schema`] drives whatever takes a request: command-line
//! flags, `key=value` pairs, JSON bodies, help and documentation. [`PredictPlan`] is a request that has been checked
//! and whose open ends (the seed) are settled; only plans travel further.

mod error;
mod predict;
mod scheduler;
pub mod schema;
#[cfg(test)]
mod tests;
mod train;
mod train_plan;

pub use error::{InputError, Problem};
pub use predict::{PredictInput, PredictPlan, Refine, SIZE_MULTIPLE, check_size, command_line};
pub use scheduler::Scheduler;
pub use train::{FileType, LrScheduler, TrainInput};
pub use train_plan::{Method, TrainOptions, TrainPlan, epochs};

/// A field whose feature is not built yet: its name, whether a value of it asks for the feature, and what to say.
type Unavailable = (&'static str, fn(&serde_json::Value) -> bool, &'static str);

/// Why `field` cannot be used (at all, or with some of its values) yet; `None` where it can.
pub fn unavailable(field: &str) -> Option<&'static str> {
    let mut all = predict::UNAVAILABLE.iter().chain(train::UNAVAILABLE);
    all.find(|(name, ..)| *name == field).map(|(.., why)| *why)
}
