//! Enlarges pictures, by Swin2SR or SwinIR.

use std::path::Path;

use calotype_models::{Error, Swin2Sr, SwinIr};
use calotype_tensor::{DType, Tensor};
use image::RgbImage;

use super::networks::{NotFinite, finite};

/// A network that enlarges pictures.
pub struct Upscaler(Either);

enum Either {
    Swin2Sr(Box<Swin2Sr>),
    SwinIr(Box<SwinIr>),
}

impl Upscaler {
    /// Opens Swin2SR, a folder as transformers saves one, or SwinIR, a file of weights or a folder with them and no `config.json`. Computes
    /// in `dtype`.
    ///
    /// # Errors
    /// A file is missing or invalid, or the network has another upsampler than "nearest+conv".
    pub fn open(path: &Path, dtype: DType) -> Result<Upscaler, Error> {
        Ok(Upscaler(match path.join("config.json").exists() {
            true => Either::Swin2Sr(Box::new(Swin2Sr::open(path, dtype)?)),
            false => Either::SwinIr(Box::new(SwinIr::open(path, dtype)?)),
        }))
    }

    /// How much larger pictures become: 2 or 4.
    pub fn factor(&self) -> u32 {
        let factor = match &self.0 {
            Either::Swin2Sr(network) => network.factor(),
            Either::SwinIr(network) => network.factor(),
        };
        factor as u32
    }

    /// The picture, larger by the factor.
    ///
    /// # Errors
    /// The network's pixels are no numbers.
    pub fn upscale(&self, picture: &RgbImage) -> Result<RgbImage, NotFinite> {
        let size @ [width, height] =
            [picture.width(), picture.height()].map(|side| side as usize * self.factor() as usize);
        if size.contains(&0) {
            return Ok(RgbImage::new(0, 0));
        }
        let enlarged = match &self.0 {
            Either::Swin2Sr(network) => network.forward(&padded(picture, network.window_size())),
            Either::SwinIr(network) => network.forward(&padded(picture, network.window_size())),
        };
        let (values, across) = (finite(enlarged.f32s())?, enlarged.dim(2));
        let rows = values.chunks_exact(across * 3).take(height);
        let byte = |x: &f32| (x.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let bytes = rows.flat_map(|row| row[..width * 3].iter().map(byte)).collect();
        let enlarged = RgbImage::from_raw(width as u32, height as u32, bytes);
        Ok(enlarged.expect("as many bytes as the picture has"))
    }
}

/// A picture as pixels (1, H, W, 3) from 0 to 1, mirrored below and at the right up to whole windows.
fn padded(picture: &RgbImage, window: usize) -> Tensor {
    let [width, height] = [picture.width(), picture.height()].map(|side| side as usize);
    let [across, down] = [width, height].map(|side| side.next_multiple_of(window));
    let mut pixels = Vec::with_capacity(across * down * 3);
    for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
        let pixel = picture.get_pixel(mirrored(x, width) as u32, mirrored(y, height) as u32);
        pixels.extend(pixel.0.map(|value| f32::from(value) / 255.0));
    }
    Tensor::from_vec(pixels, &[1, down, across, 3])
}

/// Where a line lies that is mirrored at the last of `size` lines, which is repeated, and again at the first one.
fn mirrored(at: usize, size: usize) -> usize {
    let at = at % (2 * size);
    if at < size { at } else { 2 * size - 1 - at }
}
