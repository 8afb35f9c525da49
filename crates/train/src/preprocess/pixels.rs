//! A picture as a network's input.

use calotype_models::config::ImageProcessorConfig;
use calotype_tensor::Tensor;
use image::RgbImage;

use crate::pillow::resize;

/// A picture as a network takes it, (1, side, side, 3), f32. This is what transformers' processors give where torchvision is not
/// installed.
///
/// # Panics
/// If the picture is empty.
pub(super) fn pixels(picture: &RgbImage, processor: &ImageProcessorConfig) -> Tensor {
    let ImageProcessorConfig { side, resample, rescale_factor, image_mean, image_std } = *processor;
    let [width, height] = [picture.width(), picture.height()].map(|side| side as usize);
    let bytes = resize(picture.as_raw(), 3 * width, 3, [width, height], [side, side], resample);
    // The order of roundings is that of the processors.
    let number = |(i, byte): (usize, &u8)| {
        let scaled = (f64::from(*byte) * rescale_factor) as f32;
        (scaled - image_mean[i % 3]) / image_std[i % 3]
    };
    Tensor::from_vec(bytes.iter().enumerate().map(number).collect(), &[1, side, side, 3])
}
