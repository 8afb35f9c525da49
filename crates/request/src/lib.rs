//! The requests that a user may make, declared once.
//!
//! [`PredictInput`] and [`TrainInput`] are the requests as JSON. They are the only place that declares a field's
//! name, type, default, choices, range and description. Their JSON [`schema`] drives everything that takes a
//! request: command-line flags, `key=value` pairs, JSON bodies, help and documentation.
//!
//! ```
//! use calotype_request::PredictInput;
//! use serde_json::json;
//!
//! let given = |value: serde_json::Value| value.as_object().cloned().unwrap();
//! let input = PredictInput::from_json(given(json!({ "prompt": "a cat", "width": 512 }))).unwrap();
//! assert_eq!((input.width, input.height), (512, 1024));
//! let refused = PredictInput::from_json(given(json!({ "widht": 512 }))).unwrap_err();
//! assert_eq!(refused.to_string(), "widht: unknown field, did you mean width?");
//! ```

mod error;
mod names;
mod predict;
mod scheduler;
pub mod schema;
#[cfg(test)]
mod tests;
mod train;

pub use error::{InputError, Problem};
pub use names::nearest;
pub use predict::{PredictInput, Refine, SIZE_MULTIPLE, SIZES};
pub use scheduler::Scheduler;
pub use train::{FileType, LrScheduler, RESOLUTION_MULTIPLE, TrainInput, epochs};
