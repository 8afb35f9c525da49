//! Previews: what a picture is going to be, from the clean latents that a step has predicted.

use std::sync::OnceLock;

use calotype_models::config::VaeConfig;
use calotype_models::{DecoderTiny, Vae};
use calotype_tensor::{Tensor, cpu};
use image::RgbImage;
use image::imageops::{self, FilterType};

use super::colors::LatentColors;
use super::finish;
use super::start::Preserved;

/// A picture after one of its steps, not decoded yet.
#[derive(Clone, Copy)]
pub struct Preview<'a> {
    /// The number of the picture in its request, from 0.
    pub picture: usize,
    /// The steps that the picture has made, from 1.
    pub step: usize,
    pub(super) decoder: PreviewDecoder<'a>,
    /// The predicted clean latents (1, h, w, C).
    pub(super) x0: &'a Tensor,
    /// The part that will not be what was predicted.
    pub(super) preserved: Option<&'a Preserved>,
}

/// What decodes the previews of a request.
#[derive(Clone, Copy)]
pub(super) struct PreviewDecoder<'a> {
    /// The small decoder, if there is one. Otherwise a linear map decodes.
    pub tiny: Option<&'a DecoderTiny>,
    pub colors: &'a OnceLock<LatentColors>,
    pub vae: &'a Vae,
    pub config: &'a VaeConfig,
}

impl<'a> PreviewDecoder<'a> {
    /// The linear map, fitted at the first call.
    fn colors(&self) -> &'a LatentColors {
        if let Some(colors) = self.colors.get() {
            return colors;
        }
        // Outside of the cell: fitting has parallel loops, in which this thread may take up another request's preview.
        let colors = LatentColors::fit(self.vae, self.config);
        self.colors.get_or_init(|| colors)
    }
}

impl Preview<'_> {
    /// Decodes the latents: by the preview decoder if the pipeline has one, or else by a linear map from latents to colours, without the
    /// detail inside of a latent. The result has the size of the finished picture. Pictures themselves do not depend on previews.
    ///
    /// The linear map is fitted to the VAE at the first call of a pipeline, which takes the time of encoding a picture of 256 × 256 pixels.
    pub fn decode(&self) -> RgbImage {
        let PreviewDecoder { tiny, config, .. } = self.decoder;
        let latents = self.preserved.map_or(self.x0.clone(), |preserved| preserved.put_clean(self.x0));
        let (h, w) = (latents.dim(1), latents.dim(2));
        let image = |width: usize, height: usize, pixels: &[f32]| {
            let image = RgbImage::from_raw(width as u32, height as u32, finish::bytes(pixels));
            image.expect("three values for each pixel")
        };
        let [width, height] = [w, h].map(|side| side * config.scale());
        let preview = match tiny {
            Some(tiny) => image(width, height, &tiny.decode(&latents).to_vec()),
            None => {
                let small = image(w, h, &self.decoder.colors().of(&latents));
                imageops::resize(&small, width as u32, height as u32, FilterType::Triangle)
            }
        };
        // The steps have other shapes.
        cpu::trim_pool();
        preview
    }
}

impl std::fmt::Debug for Preview<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preview")
            .field("picture", &self.picture)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}
