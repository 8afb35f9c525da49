//! The components of a model, by the names of their folders.

use crate::weights::Network;

/// A component with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// CLIP ViT-L, absent from the refiner.
    TextEncoder,
    /// OpenCLIP ViT-bigG, with a projection.
    TextEncoder2,
    /// The denoiser of the latents.
    UNet,
    /// The encoder and decoder of pictures.
    Vae,
}

impl Component {
    /// The name of the component's folder, and of its entry in `model_index.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::UNet => "unet",
            Self::Vae => "vae",
        }
    }

    /// The name of the folder of a text encoder's tokenizer.
    pub fn tokenizer(self) -> &'static str {
        if self == Self::TextEncoder { "tokenizer" } else { "tokenizer_2" }
    }

    /// The token that SDXL's tokenizers pad with.
    pub fn padding(self) -> &'static str {
        if self == Self::TextEncoder { "<|endoftext|>" } else { "!" }
    }

    pub(super) fn network(self) -> Network {
        match self {
            Self::TextEncoder | Self::TextEncoder2 => Network::ClipText,
            Self::UNet => Network::UNet,
            Self::Vae => Network::Vae,
        }
    }
}
