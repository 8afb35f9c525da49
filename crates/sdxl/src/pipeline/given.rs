//! The picture and the mask that a request gives, at the size of the pictures to make.

use image::RgbImage;

use crate::error::ArgumentError;
use crate::input::{Fit, PixelMask};
use crate::plan::{PredictPlan, check_mask};

/// A picture to begin with, and which parts of it are painted.
pub(super) struct Given {
    pub picture: RgbImage,
    pub mask: Option<PixelMask>,
}

impl Given {
    /// Fits the plan's picture and mask to its width and height, which are multiples of `scale`. `None`: the plan has no picture.
    ///
    /// # Errors
    /// There is a mask without a picture, or the mask does not fit the picture or is black.
    pub fn of(plan: &PredictPlan, scale: usize) -> Result<Option<Given>, ArgumentError> {
        check_mask(plan.mask.is_some(), plan.image.is_some())?;
        let Some(image) = &plan.image else { return Ok(None) };
        let fit = Fit::new(image.dimensions(), (plan.width, plan.height), scale);
        let mask = plan.mask.as_ref().map(|mask| PixelMask::new(mask, image, fit)).transpose()?;
        Ok(Some(Given { picture: fit.part(&image.pixels), mask }))
    }
}
