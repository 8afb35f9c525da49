//! What is to be made of each picture, and what is there already.

use std::collections::HashSet;
use std::path::Path;

use super::earlier::{self, Earlier, Found, found};
use super::{Identity, Masks, Settings};
use crate::dataset::DatasetError;
use crate::dataset::index::{self, Made, Record};
use crate::dataset::kind::{base, stem};
use crate::dataset::photos::{Photo, Photos};

/// Counted up where the steps make something else of the same picture, so that earlier results are made anew.
const VERSION: u32 = 1;
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
    /// A checksum of what square and mask are made from. Empty before the picture is decoded, if no earlier files are looked for.
    pub from: String,
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
    pub(super) fn new(
        photos: &mut Photos,
        i: usize,
        name: String,
        settings: &Settings,
        folder: Option<&Path>,
        earlier: Option<&Earlier>,
    ) -> Result<Job, DatasetError> {
        let photo = &photos.all[i];
        let record = earlier.and_then(|earlier| earlier.record(&photo.name)).cloned();
        let (has_mask, has_caption) = (photo.has_mask, !photo.caption.is_empty());
        let mut job = Job {
            name,
            from: String::new(),
            caption_from: String::new(),
            picture: Piece::Make,
            mask: (has_mask || settings.masks != Masks::Own).then_some(Piece::Make),
            caption: Piece::Make,
            record,
            is_small: photo.side.is_some_and(|side| is_small(side, settings.set.resolution)),
            has_mask,
            has_caption,
        };
        let Some(folder) = folder else { return Ok(job) };
        let caption = photo.caption.clone();
        job.from = square_from(&photos.checksum(i)?, settings);
        job.take_square(settings, folder)?;
        job.take_caption(&caption, settings, folder)?;
        Ok(job)
    }

    /// Takes the files of square and mask that are there already.
    fn take_square(&mut self, settings: &Settings, folder: &Path) -> Result<(), DatasetError> {
        let Job { record, .. } = self;
        let (from, networks) = (&self.from, &settings.networks);
        let mask_network = if self.has_mask { &Identity::None } else { &networks.mask };
        let upscaler = if self.is_small { &networks.upscaler } else { &Identity::None };
        let same_mask = record.as_ref().is_some_and(|record| mask_network.fits(record.segmenter.as_ref()));
        let same_size = record.as_ref().is_some_and(|record| upscaler.fits(record.upscaler.as_ref()));
        let piece = |file: &str, made: Option<&Made>, same: bool| -> Result<Piece, DatasetError> {
            let found = found(folder, file, made.map(|made| &*made.checksum))?;
            Ok(match found {
                Found::Missing => Piece::Make,
                Found::ByHand => Piece::ByHand,
                Found::Made if same && made.is_some_and(|made| made.from == *from) => Piece::Taken,
                Found::Made => Piece::Make,
            })
        };
        let picture_file = format!("{}.png", self.name);
        let picture = piece(&picture_file, record.as_ref().map(|r| &r.picture), same_mask && same_size)?;
        if picture == Piece::ByHand && record.is_none() {
            let problem = "is there already, and was not made from this set: take another folder";
            return Err(earlier::made(&folder.join(picture_file), problem.into()));
        }
        let mask = piece(&format!("{}.mask.png", self.name), record.as_ref().map(|r| &r.mask), same_mask)?;
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
        caption: &str,
        settings: &Settings,
        folder: &Path,
    ) -> Result<(), DatasetError> {
        let by_hand = match self.picture {
            Piece::ByHand => earlier::read(folder, &format!("{}.png", self.name))?,
            Piece::Make | Piece::Taken => None,
        };
        let square = by_hand.map_or_else(|| self.from.clone(), |bytes| index::checksum(&bytes));
        self.caption_from = caption_from(&square, caption, settings);
        let captioner = if self.has_caption { &Identity::None } else { &settings.networks.captioner };
        let record = self.record.as_ref();
        let made = record.map(|record| &record.caption);
        let same = record.is_some_and(|record| captioner.fits(record.captioner.as_ref()));
        let found = found(folder, &format!("{}.txt", self.name), made.map(|made| &*made.checksum))?;
        self.caption = match found {
            Found::ByHand => Piece::ByHand,
            Found::Made if same && made.is_some_and(|made| made.from == self.caption_from) => Piece::Taken,
            Found::Made | Found::Missing => Piece::Make,
        };
        Ok(())
    }

    /// Whether the picture itself is needed.
    pub(super) fn is_decoded(&self) -> bool {
        self.picture == Piece::Make || self.mask == Some(Piece::Make)
    }

    /// Whether the steps ask what makes masks.
    pub(super) fn asks_segmenter(&self) -> bool {
        !self.has_mask && self.is_decoded()
    }

    /// Whether the steps ask the upscaler.
    pub(super) fn asks_upscaler(&self) -> bool {
        self.is_small && self.picture == Piece::Make
    }

    /// Whether the steps ask the captioner.
    pub(super) fn asks_captioner(&self) -> bool {
        !self.has_caption && self.caption == Piece::Make
    }
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
pub(super) fn caption_from(square: &str, caption: &str, settings: &Settings) -> String {
    if !caption.is_empty() {
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
/// extension alone, the later ones keep the extension in their name. Names of an earlier preprocessing stay.
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
        let numbered = (2..).map(|n: u64| format!("{}-{n}", stem(&photo.name)));
        *name = [stem(&photo.name), photo.name.clone()].into_iter().chain(numbered).find_map(&mut take);
    }
    names.into_iter().flatten().collect()
}
