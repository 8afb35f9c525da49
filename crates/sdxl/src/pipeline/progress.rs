//! The progress of a prediction, and stopping it.

use std::ops::ControlFlow;

use super::preview::{Preview, PreviewDecoder};
use crate::Error;

/// Progress of a prediction.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Steps done, of all pictures together; 0 while the model is being loaded.
    pub step: usize,
    /// The number of steps of all pictures.
    pub steps: usize,
    /// The picture whose step has been done. `None`: something else was done, such as loading.
    pub preview: Option<Preview<'a>>,
}

/// Called with the progress. A break stops the prediction with [`Error::Interrupted`].
pub type OnStep<'a> = dyn FnMut(Step<'_>) -> ControlFlow<()> + Send + 'a;

/// The steps done so far, and the callback that is told.
pub(super) struct Progress<'a, 'b> {
    pub done: usize,
    pub steps: usize,
    pub on_step: &'a mut OnStep<'b>,
    /// What decodes previews. Set before the first step.
    pub decoder: Option<PreviewDecoder<'a>>,
}

impl Progress<'_, '_> {
    /// Tells the callback.
    pub fn report(&mut self) -> Result<(), Error> {
        self.report_with(None)
    }

    /// Tells the callback of a step that has been done.
    pub fn step_done(&mut self, preview: Option<Preview>) -> Result<(), Error> {
        self.done += 1;
        self.report_with(preview)
    }

    fn report_with(&mut self, preview: Option<Preview>) -> Result<(), Error> {
        match (self.on_step)(Step { step: self.done, steps: self.steps, preview }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}
