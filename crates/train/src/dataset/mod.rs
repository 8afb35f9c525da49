//! The training set: an archive or a folder of pictures → square pictures with captions, and what to know about them.
//!
//! ```text
//! archive/                          .zip, .tar, .tar.gz or folder → files, listed; none that escapes, none too big
//! kind.rs, layout.rs, files.rs      what each file is for, by its name and folder
//! captions.rs, text.rs, table.rs    .txt beside the picture, or a table of all
//! picture.rs, crop.rs, prepare.rs   decode upright, on white → the square to learn from → resized
//! check.rs                          what a user should know before training
//! report.rs, sheet.rs               the set as text, and as a picture
//! fingerprint.rs                    the set as a number, to know it again
//! ```
//!
//! Files are read one at a time, in the order of their paths: the same set gives the same examples.

mod archive;
mod captions;
pub(crate) mod check;
mod crop;
mod error;
mod files;
mod fingerprint;
mod kind;
mod layout;
mod picture;
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

/// What a set may unpack to.
const MAX_UNPACKED: u64 = 4 << 30;
/// What its pictures may take when they are prepared: 2,730 of 1024 × 1024 without masks.
const MAX_PREPARED: u64 = 8 << 30;

/// Told before each picture how many are done, and of how many, and with none done now and then while the set is unpacked and
/// its headers are read; breaking stops the reading with [`DatasetError::Interrupted`].
pub type Progress<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// What kind of archive the training pictures come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// A zip file.
    Zip,
    /// A tar file.
    Tar,
    /// What the file itself says.
    Infer,
}

/// What a training's request says about its set.
#[derive(Debug, Clone, Copy)]
pub struct DatasetOptions<'a> {
    /// The side of the square pictures, in pixels; at least 1.
    pub resolution: usize,
    /// What `input_images` is: a type that its content must agree with, or whatever that is.
    pub file_type: FileType,
    /// The word that is learnt.
    pub token_string: &'a str,
    /// The caption of pictures that have none; contains the token.
    pub caption_prefix: &'a str,
    /// Whether pictures that have a mask are cropped around what it shows, and not in the middle.
    pub crop_based_on_salience: bool,
}

/// A picture to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its path in the set, with `/` between folders.
    pub name: String,
    /// What it shows, in one line. The token is in it as it was written.
    pub caption: String,
    /// sRGB, (resolution, resolution, 3).
    pub rgb: Vec<u8>,
    /// How much each pixel matters, 0 to 255, (resolution, resolution); `None`: all alike.
    pub mask: Option<Vec<u8>>,
    /// Height and width of the whole picture, upright, in its own pixels.
    pub original_size: [usize; 2],
    /// Top and left of the crop, in pixels of the resized picture, as SDXL's crop conditioning counts: the square's
    /// corner times resolution / side, rounded.
    pub crop_top_left: [usize; 2],
}

/// A training set, ready to learn from.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The pictures, by path in byte order; at least one.
    pub examples: Vec<Example>,
    /// What a user should know before training, one line each.
    pub warnings: Vec<String>,
    resolution: usize,
    token: String,
}

impl Dataset {
    /// Reads the set at `path`. `count_tokens` counts a caption's tokens with those of start and end; the caption is
    /// given with the token as it was written, so what replaces that is the function's to replace first.
    ///
    /// A picture that cannot be decoded is left out, with a warning.
    ///
    /// # Errors
    /// The prefix lacks the token; the archive is broken, too big, not what `file_type` says, or holds what no archive
    /// of pictures does; there is no picture; a caption file or a mask does not fit the pictures; no caption has the
    /// token where CLIP sees it; `progress` stops.
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
