//! A square on its way: what is known of it, and what of it is there already.

use image::RgbImage;

use super::Preprocess;
use super::earlier::{self, unusable_file};
use super::job::{MASK, PICTURE, Piece, square_from};
use crate::dataset::crop::Crop;
use crate::dataset::index::{self, MadeFile, Record};
use crate::dataset::note::Note;
use crate::dataset::photos::Decoded;
use crate::dataset::{DatasetError, Example};
use calotype_sdxl::picture::{self, CAMERA_PIXELS};

/// A square on its way.
pub(super) struct Draft {
    /// The number of the picture.
    pub i: usize,
    pub example: Example,
    pub record: Record,
    /// The square before it is upscaled, if it is to be.
    pub small: Option<RgbImage>,
}

impl Preprocess<'_> {
    /// A draft without its pixels, its mask and its caption.
    pub(super) fn empty_draft(&self, i: usize, record: Record) -> Draft {
        let example = Example {
            name: self.photos.all[i].name.clone(),
            caption: String::new(),
            rgb: Vec::new(),
            mask: None,
            original_size: record.original_size,
            crop_top_left: record.square.top_left(self.settings.set.resolution),
        };
        Draft { i, example, record, small: None }
    }

    /// What is known of a square whose files are all there.
    pub(super) fn earlier_record(&self, i: usize, earlier: &Record) -> Record {
        let job = &self.jobs[i];
        let source = self.photos.all[i].name.clone();
        let mut record = Record { source, file: job.file.clone(), ..earlier.clone() };
        if job.mask == Some(Piece::ByHand) {
            record.notes.retain(|note| !note.is_about_mask());
        }
        record
    }

    /// What is known of a new square. `notes` are those of its mask.
    pub(super) fn new_record(&self, i: usize, decoded: &Decoded, crop: Crop, mut notes: Vec<Note>) -> Record {
        let (job, photo) = (&self.jobs[i], &self.photos.all[i]);
        let (width, height) = decoded.picture.dimensions();
        let resolution = self.settings.set.resolution;
        // A square of an earlier preprocessing is conditioned on as the picture that it was cut from.
        let origin = photo.origin.as_ref().filter(|_| width == height);
        let kept = job.record.as_ref().filter(|_| job.picture != Piece::Make);
        let upscaled = kept.or(origin).and_then(|record| record.upscaled);
        if let Some(origin) =
            origin.filter(|origin| decoded.files.mask.as_ref() == Some(&origin.mask.checksum))
        {
            notes.extend(origin.notes.iter().filter(|note| note.is_about_mask()).cloned());
        }
        if (width.min(height) as usize) < resolution {
            notes.push(Note::Small { width, height, resolution, upscaled });
        }
        let earlier =
            |of: fn(&Record) -> &MadeFile| job.record.as_ref().map(|r| of(r).clone()).unwrap_or_default();
        let from = square_from(&decoded.files.to_string(), &self.settings);
        let new = || MadeFile { from: from.clone(), ..MadeFile::default() };
        let piece = |piece: Piece, of: fn(&Record) -> &MadeFile| match piece {
            Piece::Make => new(),
            Piece::Taken => earlier(of),
            Piece::ByHand => MadeFile { by_hand: true, ..earlier(of) },
        };
        Record {
            name: job.name.clone(),
            source: photo.name.clone(),
            file: decoded.files.picture.clone(),
            pixels: index::checksum(decoded.picture.as_raw()),
            original_size: origin.map_or([height as usize, width as usize], |origin| origin.original_size),
            square: origin.map_or(crop, |origin| origin.square),
            upscaled,
            is_transparent: decoded.is_transparent,
            notes,
            segmenter: None,
            upscaler: kept.and_then(|record| record.upscaler.clone()),
            captioner: None,
            picture: piece(job.picture, |record| &record.picture),
            mask: job.mask.map(|mask| piece(mask, |record| &record.mask)).unwrap_or_default(),
            caption: earlier(|record| &record.caption),
        }
    }

    /// Reads the files of a square that are there already.
    pub(super) fn read_files(&self, draft: &mut Draft) -> Result<(), DatasetError> {
        let (job, Some(folder)) = (&self.jobs[draft.i], &self.folder) else { return Ok(()) };
        let resolution = self.settings.set.resolution;
        let side = resolution as u32;
        let (picture_file, mask_file) = (format!("{}.{PICTURE}", job.name), format!("{}.{MASK}", job.name));
        // Squares and masks have the resolution's size: those by hand were checked, but may have been changed since.
        let whole = Crop { top: 0, left: 0, side };
        let checked = |file: &str, size: (u32, u32)| match size == (side, side) {
            true => Ok(()),
            false => Err(unusable_file(&folder.join(file), "has changed while it was read".into())),
        };
        if job.picture != Piece::Make
            && let Some(bytes) = earlier::read(folder, &picture_file)?
        {
            let (picture, _) = picture::decode(&bytes, CAMERA_PIXELS)
                .map_err(|e| unusable_file(&folder.join(&picture_file), e.to_string()))?;
            checked(&picture_file, picture.dimensions())?;
            draft.example.rgb = whole.picture(&picture, resolution);
            draft.record.picture.by_hand = job.picture == Piece::ByHand;
        }
        if job.mask.is_some_and(|mask| mask != Piece::Make)
            && let Some(bytes) = earlier::read(folder, &mask_file)?
        {
            let mask = picture::decode_mask(&bytes, CAMERA_PIXELS)
                .map_err(|e| unusable_file(&folder.join(&mask_file), e.to_string()))?;
            checked(&mask_file, mask.dimensions())?;
            draft.example.mask = Some(whole.mask(&mask, resolution));
            draft.record.mask.by_hand = job.mask == Some(Piece::ByHand);
        }
        Ok(())
    }
}
