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
pub use predict::{PredictInput, PredictPlan, Refine, SIZE_MULTIPLE, command_line, unavailable};
pub use scheduler::Scheduler;
pub use train::{FileType, LrScheduler, TrainInput};
pub use train_plan::{Method, TrainOptions, TrainPlan};
