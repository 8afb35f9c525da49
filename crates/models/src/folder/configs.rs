//! The configs of a model's components, checked against each other.

use std::path::Path;

use crate::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::json::ConfigError;

/// The configs of all components, checked against each other.
#[derive(Clone, Debug)]
pub struct ModelConfigs {
    /// The first text encoder's config, if the model has that encoder.
    pub text_encoder: Option<ClipTextConfig>,
    /// The second text encoder's config.
    pub text_encoder_2: ClipTextConfig,
    /// The UNet's config.
    pub unet: UNetConfig,
    /// The VAE's config.
    pub vae: VaeConfig,
}

impl ModelConfigs {
    /// The side of the square pictures that the model was trained on, in pixels (1024 for SDXL). `None`: the UNet's config
    /// lacks it.
    pub fn native_size(&self) -> Option<usize> {
        self.unet.sample_size.map(|latents| latents * self.vae.scale())
    }

    /// Whether the model is as large as SDXL itself, so that what was trained for SDXL suits it.
    pub fn is_sdxl(&self) -> bool {
        const CROSS_ATTENTION_DIM: usize = 2048;
        const SIDE: usize = 1024;
        self.unet.cross_attention_dim == CROSS_ATTENTION_DIM && self.native_size() == Some(SIDE)
    }

    /// Checks that the components fit: the text states and added embeddings of the encoders have the sizes that the UNet takes, which
    /// has `ids` time ids. `file` is the UNet's config, for errors.
    pub(super) fn check_fit(&self, file: &Path, ids: usize) -> Result<(), ConfigError> {
        let unet = &self.unet;
        let fail = |field: &str, expected: String, found: usize| ConfigError::Field {
            file: file.to_path_buf(),
            field: field.into(),
            expected,
            found: found.to_string(),
        };
        let text = self.text_encoder.as_ref().map_or(0, |c| c.hidden_size) + self.text_encoder_2.hidden_size;
        if unet.cross_attention_dim != text {
            let expected = format!("{text} (the text encoders' hidden_size together)");
            return Err(fail("cross_attention_dim", expected, unet.cross_attention_dim));
        }
        if unet.out_channels != self.vae.latent_channels {
            let expected = format!("{} (the VAE's latent_channels)", self.vae.latent_channels);
            return Err(fail("out_channels", expected, unet.out_channels));
        }
        // The UNet of an inpainting model also takes the mask and the masked picture.
        let latents = self.vae.latent_channels;
        let inpainting = latents.saturating_mul(2).saturating_add(1);
        if ![latents, inpainting].contains(&unet.in_channels) {
            let other = if unet.in_channels == inpainting - 1 {
                "; models that edit pictures by instructions, such as InstructPix2Pix, are not supported"
            } else {
                ""
            };
            let expected = format!(
                "{latents} (the VAE's latent_channels), or {inpainting} of an inpainting model{other}"
            );
            return Err(fail("in_channels", expected, unet.in_channels));
        }
        let pooled = self.text_encoder_2.projection_dim;
        let added = pooled + ids * unet.addition_time_embed_dim;
        if unet.projection_class_embeddings_input_dim != added {
            let expected = format!(
                "{added} (text_encoder_2's projection_dim {pooled} + {ids} time ids × addition_time_embed_dim {})",
                unet.addition_time_embed_dim
            );
            let found = unet.projection_class_embeddings_input_dim;
            return Err(fail("projection_class_embeddings_input_dim", expected, found));
        }
        Ok(())
    }
}
