//! What is to be made of each picture, and what is there already.

use std::collections::HashSet;
use std::path::Path;

use calotype_sdxl::picture::{self, CAMERA_PIXELS};
use calotype_sdxl::text;

use super::earlier::{self, Earlier, Found, found, unusable_file};
use super::{Identity, Masks, Settings};
use crate::dataset::crop::Crop;
use crate::dataset::index::{self, MadeFile, Record};
use crate::dataset::kind::{base, stem};
use crate::dataset::photos::{Photo, Photos};
use crate::dataset::{DatasetError, list};

/// Counted up where the steps make something else of the same picture, so that earlier results are made anew.
const VERSION: u32 = 3;
/// Names that a made set has for other files.
const RESERVED: [&str; 3] = ["dataset", "contact_sheet", "preprocess"];

/// Where a file of the made set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// It is to be made.
    Make,
    /// It is there, as it would be made.
    Taken,
    /// It is there, and the user's.
    ByHand,
}

/// What is to be made of a picture.
pub(super) struct Job {
    /// The path of the files that are made, without extensions.
    pub name: String,
    /// The checksum of the picture's file. Empty if no earlier files are looked for.
    pub file: String,
    /// A checksum of what square and mask are made from. Empty before the picture is decoded, if no earlier files are looked for.
    from: String,
    /// The same of the caption.
    pub caption_from: String,
    pub picture: Piece,
    /// `None`: there is no mask.
    pub mask: Option<Piece>,
    pub caption: Piece,
    /// What an earlier preprocessing knows of the picture.
    pub record: Option<Record>,
    /// Whether the square is clearly too small.
    pub is_small: bool,
    has_mask: bool,
    has_caption: bool,
}

impl Job {
    /// The job of picture `i`, whose files are to be called `name`. `folder` is where earlier files are looked for.
    ///
    /// # Errors
    /// A file that was changed by hand cannot be used, or a file cannot be read.
    pub(super) fn new(
        photos: &mut Photos,
        i: usize,
        name: String,
        settings: &Settings,
        folder: Option<&Path>,
        earlier: Option<&Earlier>,
    ) -> Result<Job, DatasetError> {
        let photo = &photos.all[i];
        let known = |earlier: &Earlier| earlier.record(&photo.name).or(earlier.named(&name)).cloned();
        let mut job = Job {
            record: earlier.and_then(known),
            name,
            file: String::new(),
            from: String::new(),
            caption_from: String::new(),
            picture: Piece::Make,
            mask: (photo.has_mask || settings.masks != Masks::Own).then_some(Piece::Make),
            caption: Piece::Make,
            is_small: photo.side.is_some_and(|side| is_small(side, settings.set.resolution)),
            has_mask: photo.has_mask,
            has_caption: photo.caption.is_some(),
        };
        let Some(folder) = folder else { return Ok(job) };
        let caption = photo.caption.clone();
        let files = photos.checksums(i)?;
        job.from = square_from(&files.to_string(), settings);
        job.file = files.picture;
        job.take_square(settings, folder)?;
        job.take_caption(caption.as_deref(), settings, folder)?;
        Ok(job)
    }

    /// Takes the files of square and mask that are there already.
    fn take_square(&mut self, settings: &Settings, folder: &Path) -> Result<(), DatasetError> {
        let Job { record, from, .. } = &*self;
        let networks = &settings.networks;
        let mask_network = if self.has_mask { &Identity::None } else { &networks.mask };
        let upscaler = if self.is_small { &networks.upscaler } else { &Identity::None };
        let same_mask = record.as_ref().is_some_and(|record| mask_network.fits(record.segmenter.as_ref()));
        let same_size = record.as_ref().is_some_and(|record| upscaler.fits(record.upscaler.as_ref()));
        let piece = |ending: &str, of: fn(&Record) -> &MadeFile, same: bool| -> Result<Piece, DatasetError> {
            let (file, known) = (format!("{}.{ending}", self.name), record.as_ref().map(of));
            Ok(match found(folder, &file, known.map(|known| &*known.checksum))? {
                Found::Missing => Piece::Make,
                Found::AsWritten if same && known.is_some_and(|known| known.from == *from) => Piece::Taken,
                Found::AsWritten => Piece::Make,
                Found::ByHand(_) if record.is_none() && ending == PICTURE => {
                    let problem = "is there already, and was not made from this set: take another folder";
                    return Err(unusable_file(&folder.join(file), problem.into()));
                }
                Found::ByHand(bytes) => {
                    check_size(&bytes, ending, settings.set.resolution)
                        .map_err(|problem| unusable_file(&folder.join(file), problem))?;
                    Piece::ByHand
                }
            })
        };
        let picture = piece(PICTURE, |record| &record.picture, same_mask && same_size)?;
        let mask = piece(MASK, |record| &record.mask, same_mask)?;
        self.picture = picture;
        self.mask = match (self.mask, mask) {
            (_, Piece::ByHand) => Some(Piece::ByHand),
            (Some(_), mask) => Some(mask),
            (None, _) => None,
        };
        Ok(())
    }

    /// Takes the file of the caption that is there already.
    fn take_caption(
        &mut self,
        caption: Option<&str>,
        settings: &Settings,
        folder: &Path,
    ) -> Result<(), DatasetError> {
        let by_hand = match self.picture {
            Piece::ByHand => earlier::read(folder, &format!("{}.{PICTURE}", self.name))?,
            Piece::Make | Piece::Taken => None,
        };
        let square = by_hand.map_or_else(|| self.from.clone(), |bytes| index::checksum(&bytes));
        self.caption_from = caption_from(&square, caption, settings);
        let captioner = if self.has_caption { &Identity::None } else { &settings.networks.captioner };
        let record = self.record.as_ref();
        let known = record.map(|record| &record.caption);
        let same = record.is_some_and(|record| captioner.fits(record.captioner.as_ref()));
        let file = format!("{}.{CAPTION}", self.name);
        self.caption = match found(folder, &file, known.map(|known| &*known.checksum))? {
            Found::ByHand(bytes) => {
                text::decode(&bytes).map_err(|at| unusable_file(&folder.join(&file), text::problem(at)))?;
                Piece::ByHand
            }
            Found::AsWritten if same && known.is_some_and(|known| known.from == self.caption_from) => {
                Piece::Taken
            }
            Found::AsWritten | Found::Missing => Piece::Make,
        };
        Ok(())
    }

    /// Whether the picture itself is needed.
    pub(super) fn is_decoded(&self) -> bool {
        self.picture == Piece::Make || self.mask == Some(Piece::Make)
    }

    /// Whether the steps ask what makes masks: also for the crop of a picture whose mask was changed by hand, unless it is kept.
    pub(super) fn asks_segmenter(&self) -> bool {
        !self.has_mask && self.is_decoded() && !self.keeps_mask()
    }

    /// Whether the steps ask the upscaler.
    pub(super) fn asks_upscaler(&self) -> bool {
        self.is_small && self.picture == Piece::Make
    }

    /// Whether the steps ask the captioner.
    pub(super) fn asks_captioner(&self) -> bool {
        !self.has_caption && self.caption == Piece::Make
    }

    /// The crop of a picture of a size (width, height) that an earlier preprocessing has chosen, if square or mask were changed by hand
    /// since: both have to show the same part.
    pub(super) fn kept_crop(&self, (width, height): (u32, u32)) -> Option<Crop> {
        let by_hand = self.picture == Piece::ByHand || self.mask == Some(Piece::ByHand);
        let same_size = |record: &&Record| record.original_size == [height as usize, width as usize];
        self.record.as_ref().filter(|_| by_hand).filter(same_size).map(|record| record.square)
    }

    /// Whether both the mask and the crop are there, since the mask was changed by hand and the picture was not replaced.
    pub(super) fn keeps_mask(&self) -> bool {
        let same = |record: &Record| record.file == self.file;
        self.mask == Some(Piece::ByHand) && self.record.as_ref().is_some_and(same)
    }

    /// Whether an earlier preprocessing had the same picture.
    pub(super) fn goes_on(&self) -> bool {
        !self.file.is_empty() && self.record.as_ref().is_some_and(|record| record.file == self.file)
    }

    /// What of the files that were changed by hand belongs to another picture than the one that is there now, as a line.
    pub(super) fn replaced(&self) -> Option<String> {
        let other = |record: &&Record| !record.file.is_empty() && record.file != self.file;
        self.record.as_ref().filter(other)?;
        let pieces = [(PICTURE, Some(self.picture)), (MASK, self.mask), (CAPTION, Some(self.caption))];
        let by_hand = pieces.iter().filter(|(_, piece)| *piece == Some(Piece::ByHand));
        let files: Vec<String> = by_hand.map(|(ending, _)| format!("{}.{ending}", self.name)).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let line = || format!("{}: by hand, and kept, though the picture has changed", list(&files));
        (!files.is_empty()).then(line)
    }
}

/// The endings of the files of a picture.
pub(super) const PICTURE: &str = "png";
pub(super) const MASK: &str = "mask.png";
pub(super) const CAPTION: &str = "txt";

/// Whether a square or a mask that was changed by hand has the size of all squares and masks. The problem, if it has not.
fn check_size(bytes: &[u8], ending: &str, resolution: usize) -> Result<(), String> {
    let size = match ending {
        MASK => picture::decode_mask(bytes, CAMERA_PIXELS).map(|mask| mask.dimensions()),
        _ => picture::decode(bytes, CAMERA_PIXELS).map(|(picture, _)| picture.dimensions()),
    };
    let (width, height) = size.map_err(|e| e.to_string())?;
    if [width, height].iter().all(|&side| side as usize == resolution) {
        return Ok(());
    }
    Err(format!(
        "expected {resolution} × {resolution}, as all squares and masks of the set, found {width} × {height}: it was changed by hand and is kept, \
         so resize it, or remove it"
    ))
}

/// Whether a square is clearly too small: below three quarters of the resolution. A square that is a little too small gains
/// nothing from a network, whose result is made smaller again.
pub(super) fn is_small(side: u32, resolution: usize) -> bool {
    4 * u64::from(side) < 3 * resolution as u64
}

/// A checksum of what square and mask are made from; `files` is that of the picture and its mask.
pub(super) fn square_from(files: &str, settings: &Settings) -> String {
    let masks = match &settings.masks {
        Masks::Own => "own".to_owned(),
        Masks::Faces => "faces".to_owned(),
        Masks::Prompt { text, temperature } => format!("{temperature} {text}"),
    };
    let set = &settings.set;
    checksum(&[files, &set.resolution.to_string(), &set.crop_based_on_salience.to_string(), &masks])
}

/// A checksum of what a caption is made from: `caption` of the set, or the square, by its own checksum.
pub(super) fn caption_from(square: &str, caption: Option<&str>, settings: &Settings) -> String {
    if let Some(caption) = caption {
        return index::checksum(caption.as_bytes());
    }
    let Settings { seed, set, caption_decoding, .. } = settings;
    checksum(&[square, &seed.to_string(), caption_decoding, set.caption_prefix, set.token_string])
}

/// A checksum of several texts, and of the steps.
fn checksum(parts: &[&str]) -> String {
    let lengths = parts.iter().map(|part| format!("{}:{part};", part.len()));
    index::checksum(format!("{VERSION} {}", lengths.collect::<String>()).as_bytes())
}

/// The paths of the files that are made of each picture: the picture's own without its extension. Of pictures that differ in their
/// extension alone, the later ones keep the extension in their name. Names of an earlier preprocessing stay, also where a picture was
/// replaced by one with another extension.
pub(super) fn names(photos: &[Photo], earlier: Option<&Earlier>) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut take = |name: String| {
        let is_reserved = RESERVED.iter().any(|reserved| base(&name).eq_ignore_ascii_case(reserved));
        // Some systems take names for the same that differ in the case of their letters.
        (!is_reserved && taken.insert(name.to_lowercase())).then_some(name)
    };
    let mut names: Vec<Option<String>> = photos
        .iter()
        .map(|photo| earlier?.record(&photo.name).and_then(|record| take(record.name.clone())))
        .collect();
    for (name, photo) in names.iter_mut().zip(photos).filter(|(name, _)| name.is_none()) {
        let stem = stem(&photo.name);
        let known = earlier.and_then(|earlier| earlier.named(&stem)).map(|record| record.name.clone());
        let numbered = (2..).map(|n: u64| format!("{stem}-{n}"));
        let own = known.into_iter().chain([stem.clone(), photo.name.clone()]);
        *name = own.chain(numbered).find_map(&mut take);
    }
    names.into_iter().flatten().collect()
}
