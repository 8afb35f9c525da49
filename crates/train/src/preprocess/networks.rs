//! The networks of a preprocessing, as functions of pictures.

use calotype_tensor::DType;
use image::{GrayImage, RgbImage};

use crate::dataset::DatasetError;
use crate::dataset::note::Note;

/// Opens a network.
pub type Opener<'a, F> = Box<dyn FnOnce() -> Result<Box<F>, DatasetError> + 'a>;
/// Finds what matters in a picture.
pub type FindMask = dyn Fn(&RgbImage) -> Result<FoundMask, DatasetError>;
/// Enlarges a picture.
pub type Upscale = dyn Fn(&RgbImage) -> Result<RgbImage, DatasetError>;
/// Describes a picture. The seed decides between words.
pub type Caption = dyn Fn(&RgbImage, u64) -> Result<String, DatasetError>;

/// A network has computed values that are no numbers, as damaged weights give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network computes values that are no numbers")]
pub struct NotFinite;

/// The values, if all are numbers.
pub(super) fn finite(values: &[f32]) -> Result<&[f32], NotFinite> {
    if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(NotFinite) }
}

/// What a network has found in a picture.
pub struct FoundMask {
    /// The weights of the picture's pixels, of the picture's size.
    pub mask: GrayImage,
    /// What the crop is centred at, if that is not the mask.
    pub crop: Option<GrayImage>,
    pub(crate) notes: Vec<Note>,
}

impl FoundMask {
    /// A mask that also decides the crop.
    pub fn new(mask: GrayImage) -> FoundMask {
        FoundMask { mask, crop: None, notes: Vec::new() }
    }
}

/// A network that is opened for its first picture, and dropped with this.
pub struct Network<'a, F: ?Sized> {
    /// A checksum of the network's files, and the number format that it computes in. Results of another network are made anew.
    pub identity: String,
    opener: Option<Opener<'a, F>>,
    open: Option<Box<F>>,
}

impl<'a, F: ?Sized> Network<'a, F> {
    /// A network that `opener` opens.
    pub fn new(identity: String, opener: Opener<'a, F>) -> Network<'a, F> {
        Network { identity, opener: Some(opener), open: None }
    }

    /// The open network. `None` after it could not be opened.
    pub(super) fn get(&mut self) -> Result<Option<&F>, DatasetError> {
        if let Some(opener) = self.opener.take() {
            self.open = Some(opener()?);
        }
        Ok(self.open.as_deref())
    }
}

/// What the steps use. `None`: the step is left out.
#[derive(Default)]
pub struct Networks<'a> {
    /// Makes masks for pictures that have none.
    pub mask: Option<Network<'a, FindMask>>,
    /// Enlarges squares that are clearly too small.
    pub upscale: Option<Network<'a, Upscale>>,
    /// Writes captions for pictures that have none.
    pub caption: Option<Network<'a, Caption>>,
}

/// Which network a step uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Identity {
    /// None: the step is left out.
    #[default]
    None,
    /// One whose files are not there yet, which computes in this number format. It is taken for the one of earlier results.
    Unknown(DType),
    /// The one that [`identity`](super::identity) tells from others.
    Known(String),
}

impl Identity {
    /// Whether a result of `network` would be the same.
    pub(super) fn fits(&self, network: Option<&String>) -> bool {
        match self {
            Identity::None => network.is_none(),
            Identity::Unknown(dtype) => network.is_some_and(|network| network.ends_with(&ending(*dtype))),
            Identity::Known(own) => network == Some(own),
        }
    }
}

/// How the identity of a network ends that computes in a number format.
pub(super) fn ending(dtype: DType) -> String {
    format!(" {dtype}")
}

/// Which network each step uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// What makes masks.
    pub mask: Identity,
    /// The upscaler.
    pub upscaler: Identity,
    /// The captioner.
    pub captioner: Identity,
}
