//! From latents to finished pictures.

use calotype_models::Vae;
use calotype_models::config::VaeConfig;
use calotype_tensor::{DType, Tensor};

use crate::{Error, latents};

/// The side of a tile in latents, when a picture is decoded in tiles. Pictures up to 1024 × 1024 pixels are
/// decoded at once.
const VAE_TILE: usize = 128;

/// A finished picture.
pub struct Image {
    /// The width in pixels.
    pub width: usize,
    /// The height in pixels.
    pub height: usize,
    /// Rows of pixels from the top, 3 bytes per pixel.
    pub rgb: Vec<u8>,
    /// The seed that gives this picture when it is made alone.
    pub seed: u64,
}

/// Decodes the latents (1, h, w, C) of a sampling.
pub(super) fn decode(
    vae: &Vae,
    config: &VaeConfig,
    latents: &Tensor,
    dtype: DType,
    seed: u64,
) -> Result<Image, Error> {
    let latents = latents::unscale(config, latents).to_dtype(dtype);
    let picture = vae.decode_tiled(&latents, VAE_TILE); // (1, H, W, 3)
    let pixels = picture.to_vec();
    if pixels.iter().any(|x| !x.is_finite()) {
        return Err(Error::NotFinite);
    }
    Ok(Image { width: picture.dim(2), height: picture.dim(1), rgb: bytes(&pixels), seed })
}

/// Pixels from −1 to 1, as bytes. NaN is 0.
pub(super) fn bytes(pixels: &[f32]) -> Vec<u8> {
    let byte = |x: &f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    pixels.iter().map(byte).collect()
}
