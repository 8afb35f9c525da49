//! A model with trained weights merged into it, written as a folder in diffusers' layout or as a single file. Tensors are merged and
//! written one after the other, so that one tensor at a time is in memory.

mod file;
mod folder;

use std::path::PathBuf;

use calotype_models::{Component, ModelConfigs, ModelFolder, Weights};
use calotype_tensor::DType;

use crate::Error;
use crate::adapters::{Adapters, Modules};
pub use file::{Entry, TensorFile};

/// A model and the trained weights that go into it.
pub struct Merged {
    folder: ModelFolder,
    configs: ModelConfigs,
    adapters: Adapters,
    dtype: DType,
}

impl Merged {
    /// Reads the trained weights, and checks them against the model. Each LoRA is multiplied by `scale`. The tensors are written in
    /// `dtype`, which may be f16.
    ///
    /// # Errors
    /// The model or a file of trained weights is invalid, or the two do not fit.
    pub fn open(folder: ModelFolder, trained: &[PathBuf], scale: f64, dtype: DType) -> Result<Self, Error> {
        let configs = folder.configs()?;
        let adapters = match trained {
            [] => Adapters::default(),
            _ => {
                let modules = Modules::of(&folder, &configs)?;
                Adapters::load(trained, &vec![scale; trained.len()], &modules, &configs)?
            }
        };
        Ok(Self { folder, configs, adapters, dtype })
    }

    /// The networks that the model has.
    fn components(&self) -> impl Iterator<Item = Component> {
        let first = self.folder.has_text_encoder.then_some(Component::TextEncoder);
        first.into_iter().chain([Component::TextEncoder2, Component::UNet, Component::Vae])
    }

    /// A network's weights, with the trained weights merged in.
    fn weights(&self, component: Component) -> Result<Weights, Error> {
        let weights = self.folder.weights(component, None, None)?;
        Ok(match component {
            Component::Vae => weights,
            _ => weights.with_hook(self.adapters.patch(component)),
        })
    }
}

/// Whether a tensor belongs to the network: files of text encoders and VAEs may have others beside, which nothing uses.
fn is_used(component: Component, key: &str) -> bool {
    match component {
        Component::TextEncoder => key.starts_with("text_model.") && !key.ends_with("position_ids"),
        Component::TextEncoder2 => is_used(Component::TextEncoder, key) || key == "text_projection.weight",
        Component::UNet => true,
        Component::Vae => !key.starts_with("loss."),
    }
}
