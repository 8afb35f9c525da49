//! Pictures with SDXL: prompts, samplers, trained weights, and the pipeline that connects them.
//!
//! ```
//! # fn main() -> Result<(), calotype_sdxl::Error> {
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng};
//! use calotype_sdxl::PredictPlan;
//! use calotype_tensor::DType;
//!
//! let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
//! let pipeline = Pipeline::open(Path::new("../../models/pocket"), options)?;
//! let plan = PredictPlan {
//!     prompt: "a red fox in the snow".into(),
//!     width: 64,
//!     height: 64,
//!     steps: 2,
//!     seed: 7,
//!     ..PredictPlan::default()
//! };
//! let images = pipeline.predict(&plan, &mut |_step| ControlFlow::Continue(()))?;
//! assert_eq!((images[0].width, images[0].height, images[0].rgb.len()), (64, 64, 64 * 64 * 3));
//! # Ok(())
//! # }
//! ```

pub mod adapters;
mod channels_last;
pub mod error;
mod few_steps;
pub mod input;
pub mod latents;
pub mod merged;
pub mod picture;
pub mod pipeline;
pub mod plan;
pub mod prompt;
pub mod safety;
pub mod samplers;
pub mod text;
pub mod token;
pub mod watermark;

pub use channels_last::channels_last;
pub use error::{ArgumentError, Error};
pub use input::{InputImage, InputMask};
pub use pipeline::Pipeline;
pub use plan::{PredictPlan, Refine};
