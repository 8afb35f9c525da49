//! What `calotype serve` and `calotype worker` compute jobs with.
//!
//! Predictions compute in this process, with a model that stays open. Trainings and preparations are processes of their own, so that a
//! crash or a lack of memory ends one of them alone.
//!
//! ```text
//! predictions.rs   requests → PNG files, with a warm model
//! warmth.rs        how much stays in memory between predictions
//! trainings.rs     requests → `calotype train` in a run's folder
//! preparations.rs  requests → `calotype preprocess`, and what `calotype train` says of the set
//! arguments.rs     requests as arguments of the command line
//! child.rs         the process of a job: its signals, end
//! lines.rs         what the process says
//! follow.rs        what a run's folder tells on the way
//! ```

mod arguments;
mod child;
mod follow;
mod lines;
mod predictions;
mod preparations;
mod trainings;
mod warmth;

use std::path::Path;

use calotype_request::schema::Schema;
use calotype_request::{PredictInput, TrainInput};
use calotype_serve::engine::{Engine, EngineError, Predicted, Prepared, Stop, Trained, Work};
use serde_json::{Map, Value};

pub use self::predictions::Predictions;
pub use self::trainings::Trainings;
pub use self::warmth::Warmth;
use crate::failure::Failure;
use crate::plans;

/// Predictions and trainings of one model.
pub struct Service {
    pub predictions: Predictions,
    pub trainings: Trainings,
}

impl Engine for Service {
    fn model(&self) -> String {
        self.predictions.model()
    }

    fn native_size(&self) -> Option<usize> {
        self.predictions.native_size()
    }

    fn set_up(&self) -> Result<(), EngineError> {
        self.predictions.set_up().map_err(|failure| EngineError::Failed(failure.problem()))
    }

    fn check_prediction(&self, input: &Map<String, Value>) -> Result<(), EngineError> {
        let schema = PredictInput::command_line_schema();
        let checked = PredictInput::from_command_line(input.clone()).map_err(Failure::from);
        let checked = checked.and_then(|request| self.predictions.check(&request, input));
        checked.map_err(|failure| engine_error(failure, &schema, &[]))
    }

    fn check_training(&self, input: &Map<String, Value>) -> Result<(), EngineError> {
        let check = || {
            let request = TrainInput::from_json(input.clone())?;
            plans::masks(&request)?;
            plans::train(request, Default::default())?;
            Ok::<(), Failure>(())
        };
        check().map_err(|failure| engine_error(failure, &TrainInput::schema(), &[]))?;
        arguments::check_texts(input)
    }

    fn predict(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Predicted, EngineError> {
        self.predictions.predict(input, folder, work)
    }

    fn train(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Trained, EngineError> {
        let _cooled = self.predictions.cool();
        self.trainings.train(input, folder, work)
    }

    fn prepare(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Prepared, EngineError> {
        // As before a training, so that the memory is there which the forecast counts on.
        let _cooled = self.predictions.cool();
        self.trainings.prepare(input, folder, work)
    }
}

/// A failure as the service's clients get it: with the field that it is about. `files` are those of the request, with their fields.
fn engine_error(failure: Failure, schema: &Schema, files: &[(&str, &Path)]) -> EngineError {
    let problem = failure.problem();
    let input =
        |field: &str, problem: &str| EngineError::Input { field: field.into(), problem: problem.into() };
    if let Failure::Interrupted = failure {
        return EngineError::Stopped(Stop::Cancel);
    }
    let is_field = |name: &str| schema.fields().iter().any(|field| field.name == name);
    match problem.split_once(": ") {
        Some((field, rest)) if is_field(field) => input(field, rest),
        _ => match files.iter().find(|(_, file)| problem.contains(&*file.to_string_lossy())) {
            Some((field, _)) => input(field, &problem),
            None => EngineError::Failed(problem),
        },
    }
}
