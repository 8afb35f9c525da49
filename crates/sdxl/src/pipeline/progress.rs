//! The progress of a prediction, and stopping it.

use std::ops::ControlFlow;

use crate::Error;

/// Progress of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Steps done, of all pictures together; 0 while the model is being loaded.
    pub step: usize,
    /// The number of steps of all pictures.
    pub steps: usize,
}

/// Called with the progress. A break stops the prediction with [`Error::Interrupted`].
pub type OnStep<'a> = dyn FnMut(Step) -> ControlFlow<()> + Send + 'a;

/// The steps done so far, and the callback that is told.
pub(super) struct Progress<'a, 'b> {
    pub done: usize,
    pub steps: usize,
    pub on_step: &'a mut OnStep<'b>,
}

impl Progress<'_, '_> {
    /// Tells the callback.
    pub fn report(&mut self) -> Result<(), Error> {
        match (self.on_step)(Step { step: self.done, steps: self.steps }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}
