//! The training set: an archive or a folder of pictures → square pictures with captions, and warnings.
//!
//! ```text
//! archive/                          .zip, .tar, .tar.gz or folder → listed files; none leads out, none is too big
//! kind.rs, layout.rs, files.rs      the use of each file, by its name and folder
//! captions.rs, text.rs, table.rs    .txt files of pictures, or a table for all pictures
//! photos.rs, crop.rs                decode upright, on white, with the mask → crop to a square → resize
//! index.rs, note.rs                 what an earlier preprocessing knows of its squares; warnings about one picture
//! check.rs                          errors and warnings before a training
//! report.rs, sheet.rs               the set as text, and as a picture
//! fingerprint.rs                    a checksum that identifies the set
//! ```
//!
//! [`preprocess`](crate::preprocess) makes examples of the pictures, with all that the set lacks.
//! Files are read one at a time, in the order of their paths, so the same set gives the same examples.

mod archive;
mod captions;
pub(crate) mod check;
pub(crate) mod crop;
mod error;
mod files;
mod fingerprint;
pub(crate) mod index;
pub(crate) mod kind;
mod layout;
pub(crate) mod note;
pub(crate) mod photos;
mod report;
mod sheet;
mod table;
pub(crate) mod text;

use std::ops::ControlFlow;

pub use error::DatasetError;
pub(crate) use error::list;
pub use fingerprint::fingerprint;
pub use index::INDEX;
pub use report::Picture;

use self::index::Record;
use serde::{Deserialize, Serialize};

/// Called before each picture with the number of pictures that are done and the number of all. Also called with 0 done, from
/// time to time, while the set is unpacked and its headers are read. A break stops with [`DatasetError::Interrupted`].
pub type Progress<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// The type of the archive with the training pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// A zip file.
    Zip,
    /// A tar file.
    Tar,
    /// The type that the file's content shows.
    Infer,
}

/// The settings of a training's request that concern its set.
#[derive(Debug, Clone, Copy)]
pub struct DatasetOptions<'a> {
    /// The side of the square pictures, in pixels; at least 1.
    pub resolution: usize,
    /// The type of `input_images`, which its content must have, or [`FileType::Infer`].
    pub file_type: FileType,
    /// The word that the model learns.
    pub token_string: &'a str,
    /// The caption of pictures without a caption. It contains the token.
    pub caption_prefix: &'a str,
    /// Whether pictures with a mask are cropped around the mask's white part rather than in the middle.
    pub crop_based_on_salience: bool,
}

/// A picture to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The picture's path in the set, with `/` between folders.
    pub name: String,
    /// The caption, on one line, with the token in its original spelling.
    pub caption: String,
    /// sRGB, (resolution, resolution, 3).
    pub rgb: Vec<u8>,
    /// (resolution, resolution): the weight of each pixel, 0 to 255. `None`: all are equal.
    pub mask: Option<Vec<u8>>,
    /// Height and width of the whole picture, upright, in its own pixels.
    pub original_size: [usize; 2],
    /// Top and left of the crop, in pixels of the resized picture, as in SDXL's crop conditioning: the square's corner times
    /// resolution / side, rounded.
    pub crop_top_left: [usize; 2],
}

/// A prepared training set.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The pictures, by path in byte order; at least one. Squares of an earlier preprocessing have the order of their pictures.
    pub examples: Vec<Example>,
    /// Warnings for the user before a training, one line each.
    pub warnings: Vec<String>,
    /// What the preprocessing knows of each example.
    pub(crate) records: Vec<Record>,
    resolution: usize,
    token: String,
}

impl Dataset {
    /// Whether a network made any mask, square or caption.
    pub fn used_networks(&self) -> bool {
        let networks = |r: &Record| r.segmenter.is_some() || r.upscaler.is_some() || r.captioner.is_some();
        self.records.iter().any(networks)
    }

    /// Checks the captions of prepared pictures, and adds warnings about them.
    ///
    /// # Errors
    /// No caption has the token where CLIP reads it.
    pub(crate) fn checked(
        examples: Vec<Example>,
        records: Vec<Record>,
        mut warnings: Vec<String>,
        settings: &DatasetOptions,
        count_tokens: &dyn Fn(&str) -> usize,
    ) -> Result<Dataset, DatasetError> {
        check::captions(&examples, settings.token_string, count_tokens, &mut warnings)?;
        let token = settings.token_string.to_owned();
        Ok(Dataset { examples, warnings, records, resolution: settings.resolution, token })
    }
}
