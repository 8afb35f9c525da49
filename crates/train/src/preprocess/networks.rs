//! The networks of a preprocessing, as functions of pictures.

use image::{GrayImage, RgbImage};

use crate::dataset::DatasetError;
use crate::dataset::note::Note;

/// Opens a network.
pub type Opener<'a, F> = Box<dyn FnOnce() -> Result<Box<F>, DatasetError> + 'a>;
/// Finds what matters in a picture.
pub type MakeMask = dyn Fn(&RgbImage) -> MadeMask;
/// Enlarges a picture.
pub type Upscale = dyn Fn(&RgbImage) -> RgbImage;
/// Describes a picture. The seed decides between words.
pub type Caption = dyn Fn(&RgbImage, u64) -> String;

/// What a picture's mask became.
pub struct MadeMask {
    /// The weights of the picture's pixels, of the picture's size.
    pub mask: GrayImage,
    /// What the crop is centred at, if that is not the mask.
    pub crop: Option<GrayImage>,
    pub(crate) notes: Vec<Note>,
}

impl MadeMask {
    /// A mask that also decides the crop.
    pub fn new(mask: GrayImage) -> MadeMask {
        MadeMask { mask, crop: None, notes: Vec::new() }
    }
}

/// A network that is opened for its first picture, and dropped with this.
pub struct Network<'a, F: ?Sized> {
    /// A checksum of the network's files. Results of another network are made anew.
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
    pub mask: Option<Network<'a, MakeMask>>,
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
    /// One whose files are not there yet. It is taken for the one of earlier results.
    Unknown,
    /// The one with this checksum.
    Known(String),
}

impl Identity {
    /// Whether a result of `network` would be the same.
    pub(super) fn fits(&self, network: Option<&String>) -> bool {
        match self {
            Identity::None => network.is_none(),
            Identity::Unknown => network.is_some(),
            Identity::Known(own) => network == Some(own),
        }
    }
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
