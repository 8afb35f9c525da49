//! The training set: an archive or a folder of pictures → square pictures with captions, and warnings.
//!
//! ```text
//! archive/                          .zip, .tar, .tar.gz or folder → listed files; none leads out, none is too big
//! kind.rs, layout.rs, files.rs      the use of each file, by its name and folder
//! captions.rs, text.rs, table.rs    .txt files of pictures, or a table for all pictures
//! picture.rs, crop.rs, prepare.rs   decode upright, on white → crop to a square → resize
//! check.rs                          errors and warnings before a training
//! report.rs, sheet.rs               the set as text, and as a picture
//! fingerprint.rs                    a checksum that identifies the set
//! ```
//!
//! Files are read one at a time, in the order of their paths, so the same set gives the same examples.

mod archive;
mod captions;
pub(crate) mod check;
mod crop;
mod error;
mod files;
mod fingerprint;
mod kind;
mod layout;
mod prepare;
mod report;
mod sheet;
mod table;
mod text;

use std::ops::ControlFlow;
use std::path::Path;

pub use error::DatasetError;
pub use fingerprint::fingerprint;

use self::archive::Archive;
use self::files::Files;
use serde::{Deserialize, Serialize};

/// The most bytes to which a set may unpack.
const MAX_UNPACKED: u64 = 4 << 30;
/// The most bytes of a set's prepared pictures: 2,730 of 1024 × 1024 without masks.
const MAX_PREPARED: u64 = 8 << 30;

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
    /// The pictures, by path in byte order; at least one.
    pub examples: Vec<Example>,
    /// Warnings for the user before a training, one line each.
    pub warnings: Vec<String>,
    resolution: usize,
    token: String,
}

impl Dataset {
    /// Reads the set at `path`. `count_tokens` counts the tokens of a caption, including start and end. The caption has the
    /// token in its original spelling; the function must replace it first if the trainer does.
    ///
    /// A picture that cannot be decoded is left out, with a warning.
    ///
    /// # Errors
    /// The prefix lacks the token; the archive is broken, too big, not of type `file_type`, or has an entry that no archive of
    /// pictures should have; there is no picture; a caption file or a mask does not fit the pictures; no caption has the token
    /// where CLIP reads it; or `progress` breaks.
    pub fn open(
        path: &Path,
        settings: &DatasetOptions,
        count_tokens: &dyn Fn(&str) -> usize,
        progress: &mut Progress,
    ) -> Result<Dataset, DatasetError> {
        check::prefix(settings.caption_prefix, settings.token_string)?;
        let (mut archive, entries) = Archive::open(path, settings.file_type, MAX_UNPACKED, progress)?;
        let mut warnings = Vec::new();
        let files = Files::sort(entries, &archive.links, &mut warnings);
        if files.pictures.is_empty() {
            return Err(DatasetError::NoPicture { reason: files.reason });
        }
        check::fits(files.pictures.len(), settings.resolution, MAX_PREPARED)?;
        prepare::check_pixels(&mut archive, &files, progress)?;
        let names: Vec<&str> = files.pictures.iter().map(|p| p.name.as_str()).collect();
        let prefix = settings.caption_prefix;
        let captions = captions::assign(&mut archive, &files.sources, &names, prefix, &mut warnings)?;
        let examples = prepare::examples(&mut archive, files, captions, settings, &mut warnings, progress)?;
        check::captions(&examples, settings.token_string, count_tokens, &mut warnings)?;
        Ok(Dataset {
            examples,
            warnings,
            resolution: settings.resolution,
            token: settings.token_string.to_owned(),
        })
    }
}
