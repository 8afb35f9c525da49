//! Picture → mask → square → upscaled, if it is clearly too small → resized.

use super::draft::Draft;
use super::job::{Job, Piece, is_small};
use super::networks::{FindMask, FoundMask, Identity, Network, Upscale};
use super::{Preprocess, Progress, Stage, Writer};
use crate::dataset::DatasetError;
use crate::dataset::crop::Crop;
use crate::dataset::note::Note;
use crate::dataset::photos::Decoded;

/// The value from which on a mask that a network made shows what was found.
const BRIGHT: u8 = 128;

/// The numbers of the pictures that cannot be read, each with the reason.
pub(super) type Unreadable = Vec<(usize, String)>;

impl Preprocess<'_> {
    /// Makes the squares of all pictures, but for those that are to be upscaled. Also returns the number of each picture that cannot
    /// be read, with the reason.
    pub(super) fn squares(
        &mut self,
        mut network: Option<Network<FindMask>>,
        has_upscaler: bool,
        writer: &mut Option<&mut Writer>,
        progress: &mut Progress,
    ) -> Result<(Vec<Draft>, Unreadable), DatasetError> {
        let count = self.jobs.len();
        let (mut squares, mut problems) = (Vec::with_capacity(count), Vec::new());
        for i in 0..count {
            if progress(Stage::Pictures, i, count).is_break() {
                return Err(DatasetError::Interrupted);
            }
            match self.square(i, &mut network, has_upscaler)? {
                Err(problem) => problems.push((i, problem)),
                Ok(draft) => {
                    if let Some(writer) = writer.as_deref_mut().filter(|_| draft.small.is_none()) {
                        writer.square(&draft.example, &draft.record)?;
                    }
                    squares.push(draft);
                }
            }
        }
        Ok((squares, problems))
    }

    /// The inner error says why the picture cannot be read.
    fn square(
        &mut self,
        i: usize,
        network: &mut Option<Network<FindMask>>,
        has_upscaler: bool,
    ) -> Result<Result<Draft, String>, DatasetError> {
        let mut draft = match (self.jobs[i].is_decoded(), &self.jobs[i].record) {
            (false, Some(record)) => self.empty_draft(i, self.earlier_record(i, record)),
            _ => match self.photos.decode(i)? {
                Err(problem) => return Ok(Err(problem)),
                Ok(decoded) => self.new_draft(i, &decoded, network, has_upscaler)?,
            },
        };
        self.read_files(&mut draft)?;
        Ok(Ok(draft))
    }

    /// Makes the square of a decoded picture.
    fn new_draft(
        &self,
        i: usize,
        decoded: &Decoded,
        network: &mut Option<Network<FindMask>>,
        has_upscaler: bool,
    ) -> Result<Draft, DatasetError> {
        let (job, set, picture) = (&self.jobs[i], &self.settings.set, &decoded.picture);
        let found = match network.as_mut().filter(|_| job.asks_segmenter()) {
            Some(network) => network.get()?.map(|find_mask| find_mask(picture)).transpose()?,
            None => None,
        };
        let own = decoded.mask.as_ref();
        let centre = found.as_ref().map(|found| found.crop.as_ref().unwrap_or(&found.mask)).or(own);
        let size = picture.dimensions();
        let kept = job.kept_crop(size);
        let crop = kept.unwrap_or_else(|| Crop::choose(size, centre.filter(|_| set.crop_based_on_salience)));
        let resolution = set.resolution;
        let is_small = has_upscaler && is_small(crop.side, resolution) && job.picture == Piece::Make;
        let segmenter = self.segmenter(job, network.as_ref().filter(|_| found.is_some()));
        let (found_mask, notes) = found.map(|found| shown(found, crop, resolution)).unzip();
        let mask = found_mask.or(own.map(|mask| crop.mask(mask, resolution)));
        if let (Some(name), true) = (self.photos.mask_name(i), mask.iter().flatten().all(|&value| value == 0))
        {
            return Err(DatasetError::mask(name, "black all over the crop: nothing to learn from"));
        }
        let mut notes = notes.unwrap_or_default();
        notes.retain(|note| match note {
            Note::Faces(_) => set.crop_based_on_salience && kept.is_none(),
            _ => job.mask != Some(Piece::ByHand),
        });
        let mut record = self.new_record(i, decoded, crop, notes);
        record.segmenter = segmenter;
        let mut draft = self.empty_draft(i, record);
        draft.example.mask = mask;
        match is_small {
            true => draft.small = Some(crop.cut(picture)),
            false => draft.example.rgb = crop.picture(picture, resolution),
        }
        Ok(draft)
    }

    /// The identity of the network that made a mask, or that would have made it, if the mask is kept because it was changed by hand.
    fn segmenter(&self, job: &Job, asked: Option<&Network<FindMask>>) -> Option<String> {
        match &self.settings.networks.mask {
            _ if asked.is_some() => asked.map(|network| network.identity.clone()),
            Identity::Known(network) if job.keeps_mask() => Some(network.clone()),
            Identity::Unknown(_) if job.keeps_mask() => job.record.as_ref()?.segmenter.clone(),
            _ => None,
        }
    }

    /// Enlarges the squares that are clearly too small.
    pub(super) fn upscale(
        &self,
        squares: &mut [Draft],
        network: Option<Network<Upscale>>,
        writer: &mut Option<&mut Writer>,
        progress: &mut Progress,
    ) -> Result<(), DatasetError> {
        let Some(mut network) = network else { return Ok(()) };
        let count = squares.iter().filter(|draft| draft.small.is_some()).count();
        let resolution = self.settings.set.resolution;
        for (done, draft) in squares.iter_mut().filter(|draft| draft.small.is_some()).enumerate() {
            if progress(Stage::Upscaling, done, count).is_break() {
                return Err(DatasetError::Interrupted);
            }
            let identity = network.identity.clone();
            let (Some(upscale), Some(small)) = (network.get()?, draft.small.take()) else { continue };
            let large = upscale(&small)?;
            let factor = large.width() / small.width().max(1);
            let whole = Crop::choose(large.dimensions(), None);
            draft.example.rgb = whole.picture(&large, resolution);
            draft.record.upscaled = Some(factor);
            draft.record.upscaler = Some(identity);
            for note in &mut draft.record.notes {
                if let Note::Small { upscaled, .. } = note {
                    *upscaled = Some(factor);
                }
            }
            if let Some(writer) = writer {
                writer.square(&draft.example, &draft.record)?;
            }
        }
        if count > 0 && progress(Stage::Upscaling, count, count).is_break() {
            return Err(DatasetError::Interrupted);
        }
        Ok(())
    }
}

/// A mask that a network made, in the square, and its notes. All of the square counts if it shows nothing of what was found: a mask that
/// is dark all over would take the picture out of the training.
fn shown(found: FoundMask, crop: Crop, resolution: usize) -> (Vec<u8>, Vec<Note>) {
    let FoundMask { mask, mut notes, .. } = found;
    if crop.brightest(&mask) >= BRIGHT {
        return (crop.mask(&mask, resolution), notes);
    }
    notes.push(Note::Outside);
    (vec![u8::MAX; resolution * resolution], notes)
}
