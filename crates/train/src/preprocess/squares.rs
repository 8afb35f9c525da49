//! Picture → mask → square → upscaled, if it is clearly too small → resized.

use image::RgbImage;
use image::imageops::{self, FilterType};

use super::earlier::{self, made};
use super::job::{Piece, is_small, square_from};
use super::networks::{MadeMask, MakeMask, Network, Upscale};
use super::{Preprocess, Progress, Stage, Writer};
use crate::dataset::crop;
use crate::dataset::index::{self, Made, Record};
use crate::dataset::note::Note;
use crate::dataset::photos::Decoded;
use crate::dataset::{DatasetError, Example};
use calotype_sdxl::picture::{self, CAMERA_PIXELS};

/// A square on its way.
pub(super) struct Square {
    /// The number of the picture.
    pub i: usize,
    pub example: Example,
    pub record: Record,
    /// The square before it is upscaled, if it is to be.
    small: Option<RgbImage>,
}

/// The numbers of the pictures that cannot be read, each with the reason.
pub(super) type Unreadable = Vec<(usize, String)>;

impl Preprocess<'_> {
    /// Makes the squares of all pictures, but for those that are to be upscaled. Also returns the number of each picture that cannot
    /// be read, with the reason.
    pub(super) fn squares(
        &mut self,
        mut network: Option<Network<MakeMask>>,
        has_upscaler: bool,
        writer: &mut Option<&mut Writer>,
        progress: &mut Progress,
    ) -> Result<(Vec<Square>, Unreadable), DatasetError> {
        let count = self.jobs.len();
        let (mut squares, mut problems) = (Vec::with_capacity(count), Vec::new());
        for i in 0..count {
            if progress(Stage::Pictures, i, count).is_break() {
                return Err(DatasetError::Interrupted);
            }
            match self.square(i, &mut network, has_upscaler)? {
                Err(problem) => problems.push((i, problem)),
                Ok(square) => {
                    if let Some(writer) = writer.as_deref_mut().filter(|_| square.small.is_none()) {
                        writer.square(&square.example, &square.record)?;
                    }
                    squares.push(square);
                }
            }
        }
        Ok((squares, problems))
    }

    /// The inner error says why the picture cannot be read.
    fn square(
        &mut self,
        i: usize,
        network: &mut Option<Network<MakeMask>>,
        has_upscaler: bool,
    ) -> Result<Result<Square, String>, DatasetError> {
        let mut square = match (self.jobs[i].is_decoded(), &self.jobs[i].record) {
            (false, Some(record)) => self.taken(i, record.clone()),
            _ => match self.photos.decode(i)? {
                Err(problem) => return Ok(Err(problem)),
                Ok(decoded) => self.made(i, &decoded, network, has_upscaler)?,
            },
        };
        self.read_files(&mut square)?;
        Ok(Ok(square))
    }

    /// A square whose files are all there.
    fn taken(&self, i: usize, record: Record) -> Square {
        let example = Example {
            name: self.photos.all[i].name.clone(),
            caption: String::new(),
            rgb: Vec::new(),
            mask: None,
            original_size: record.original_size,
            crop_top_left: record.square.top_left(self.settings.set.resolution),
        };
        Square { i, example, record, small: None }
    }

    /// Makes the square of a decoded picture.
    fn made(
        &self,
        i: usize,
        decoded: &Decoded,
        network: &mut Option<Network<MakeMask>>,
        has_upscaler: bool,
    ) -> Result<Square, DatasetError> {
        let (set, picture) = (&self.settings.set, &decoded.picture);
        let mut found = match (&decoded.mask, network.as_mut()) {
            (None, Some(network)) => network.get()?.map(|make_mask| make_mask(picture)),
            _ => None,
        };
        let notes = found.as_mut().map(|found| std::mem::take(&mut found.notes)).unwrap_or_default();
        let mask = decoded.mask.as_ref().or(found.as_ref().map(|found| &found.mask));
        let centre = found.as_ref().and_then(|found: &MadeMask| found.crop.as_ref()).or(mask);
        let square =
            crop::Square::choose(picture.dimensions(), centre.filter(|_| set.crop_based_on_salience));
        // At most 65,535, because the prepared pictures fit into memory.
        let resolution = set.resolution as u32;
        let mask = mask.map(|mask| square.mask(mask, resolution).into_raw());
        if let (Some(name), true) = (self.photos.mask_name(i), mask.iter().flatten().all(|&value| value == 0))
        {
            return Err(DatasetError::mask(name, "black all over the crop: nothing to learn from"));
        }
        let small =
            (has_upscaler && is_small(square.side, set.resolution) && self.jobs[i].picture == Piece::Make)
                .then(|| square.cut(picture));
        let rgb = if small.is_some() { Vec::new() } else { square.picture(picture, resolution).into_raw() };
        let segmenter = found.is_some().then(|| network.as_ref().map(|network| network.identity.clone()));
        let mut record = self.record(i, decoded, square, notes);
        record.segmenter = segmenter.flatten();
        let example = Example {
            name: self.photos.all[i].name.clone(),
            caption: String::new(),
            rgb,
            mask,
            original_size: record.original_size,
            crop_top_left: record.square.top_left(set.resolution),
        };
        Ok(Square { i, example, record, small })
    }

    /// What is known of a new square.
    fn record(&self, i: usize, decoded: &Decoded, square: crop::Square, mut notes: Vec<Note>) -> Record {
        let (job, photo) = (&self.jobs[i], &self.photos.all[i]);
        let (width, height) = decoded.picture.dimensions();
        let resolution = self.settings.set.resolution;
        if (width.min(height) as usize) < resolution {
            notes.push(Note::Small { width, height, resolution, upscaled: None });
        }
        // A square of an earlier preprocessing is conditioned on as the picture that it was cut from.
        let origin = photo.origin.as_ref().filter(|_| width == height);
        let earlier =
            |of: fn(&Record) -> &Made| job.record.as_ref().map(|r| of(r).clone()).unwrap_or_default();
        let new = || Made { from: square_from(&decoded.files, &self.settings), ..Made::default() };
        let piece = |piece: Piece, of: fn(&Record) -> &Made| match piece {
            Piece::Make => new(),
            Piece::Taken => earlier(of),
            Piece::ByHand => Made { by_hand: true, ..earlier(of) },
        };
        let kept = job.record.as_ref().filter(|_| job.picture != Piece::Make);
        Record {
            name: job.name.clone(),
            source: photo.name.clone(),
            pixels: index::checksum(decoded.picture.as_raw()),
            original_size: origin.map_or([height as usize, width as usize], |origin| origin.original_size),
            square: origin.map_or(square, |origin| origin.square),
            upscaled: kept.or(origin).and_then(|record| record.upscaled),
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
    fn read_files(&self, square: &mut Square) -> Result<(), DatasetError> {
        let (job, Some(folder)) = (&self.jobs[square.i], &self.folder) else { return Ok(()) };
        let resolution = self.settings.set.resolution as u32;
        let (picture_file, mask_file) = (format!("{}.png", job.name), format!("{}.mask.png", job.name));
        let mut size = (resolution, resolution);
        if job.picture != Piece::Make
            && let Some(bytes) = earlier::read(folder, &picture_file)?
        {
            let (picture, _) = picture::decode(&bytes, CAMERA_PIXELS)
                .map_err(|e| made(&folder.join(&picture_file), e.to_string()))?;
            size = picture.dimensions();
            square.example.rgb = crop::Square::choose(size, None).picture(&picture, resolution).into_raw();
            square.record.picture.by_hand = job.picture == Piece::ByHand;
        }
        if job.mask.is_some_and(|mask| mask != Piece::Make)
            && let Some(bytes) = earlier::read(folder, &mask_file)?
        {
            let problem = |problem: String| made(&folder.join(&mask_file), problem);
            let mask = picture::decode_mask(&bytes, CAMERA_PIXELS).map_err(|e| problem(e.to_string()))?;
            if mask.dimensions() != size {
                let ((w, h), (mw, mh)) = (size, mask.dimensions());
                return Err(problem(format!(
                    "expected the size of its picture, {w} × {h}, found {mw} × {mh}"
                )));
            }
            square.example.mask = Some(crop::Square::choose(size, None).mask(&mask, resolution).into_raw());
            square.record.mask.by_hand = job.mask == Some(Piece::ByHand);
        }
        Ok(())
    }

    /// Enlarges the squares that are clearly too small.
    pub(super) fn upscale(
        &self,
        squares: &mut [Square],
        network: Option<Network<Upscale>>,
        writer: &mut Option<&mut Writer>,
        progress: &mut Progress,
    ) -> Result<(), DatasetError> {
        let Some(mut network) = network else { return Ok(()) };
        let count = squares.iter().filter(|square| square.small.is_some()).count();
        let resolution = self.settings.set.resolution as u32;
        for (done, square) in squares.iter_mut().filter(|square| square.small.is_some()).enumerate() {
            if progress(Stage::Upscaling, done, count).is_break() {
                return Err(DatasetError::Interrupted);
            }
            let identity = network.identity.clone();
            let (Some(upscale), Some(small)) = (network.get()?, square.small.take()) else { continue };
            let large = upscale(&small);
            let factor = large.width() / small.width().max(1);
            let resized = imageops::resize(&large, resolution, resolution, FilterType::Lanczos3);
            square.example.rgb = resized.into_raw();
            square.record.upscaled = Some(factor);
            square.record.upscaler = Some(identity);
            for note in &mut square.record.notes {
                if let Note::Small { upscaled, .. } = note {
                    *upscaled = Some(factor);
                }
            }
            if let Some(writer) = writer {
                writer.square(&square.example, &square.record)?;
            }
        }
        if count > 0 && progress(Stage::Upscaling, count, count).is_break() {
            return Err(DatasetError::Interrupted);
        }
        Ok(())
    }
}
