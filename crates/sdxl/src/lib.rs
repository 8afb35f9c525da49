//! Pictures with SDXL: prompts, samplers, trained weights, and the pipeline that joins them.

pub mod adapters;
pub mod error;
mod layout;
pub mod pipeline;
pub mod plan;
pub mod prompt;
pub mod samplers;
pub mod text;
pub mod token;

pub use error::{ArgumentError, Error};
pub use layout::channels_last;
pub use pipeline::Pipeline;
pub use plan::PredictPlan;
