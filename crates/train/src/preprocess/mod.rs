//! The pictures of a set → the squares that a training learns from, with the masks and captions that the set lacks.
//!
//! ```text
//! networks.rs, open.rs      the networks, each opened for its first picture and dropped after its last
//! faces.rs                  faces, and masks of them
//! job.rs                    what is to be made of each picture, and what an earlier preprocessing has made already
//! upscaler.rs               a picture, larger: Swin2SR and SwinIR
//! squares.rs, captions.rs   picture → mask → square → upscaled, if it is clearly too small → resized;  square → caption
//! captioner.rs              captions by BLIP; decoding.rs: how their tokens are chosen; wording.rs: what is mended in them
//! segmenter.rs              masks by CLIPSeg of what a prompt names
//! pixels.rs                 a picture as a network's input
//! draft.rs                  a square on its way
//! earlier.rs, writer.rs     the made set on disk: read, and written; lock.rs: by one process at a time; zipped.rs: as a zip file
//! ```
//!
//! The steps are taken one after the other, each for all pictures, so that one network at a time is in memory. What is made of a
//! picture depends on the picture, the settings and the networks alone, whatever the order and number of pictures.

pub mod captioner;
mod captions;
mod decoding;
mod draft;
mod earlier;
pub mod faces;
mod job;
mod lock;
mod networks;
mod open;
mod pixels;
pub mod segmenter;
mod squares;
mod upscaler;
mod wording;
mod writer;
mod zipped;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::dataset::photos::{Photos, Seen};
use crate::dataset::text::alone;
use crate::dataset::{Dataset, DatasetError, DatasetOptions, list};

pub use self::captioner::Captioner;
pub use self::networks::{
    Caption, FindMask, FoundMask, Identity, Network, Networks, NotFinite, Opener, Upscale, Used,
};
pub use self::open::{faces_identity, identity};
pub use self::segmenter::{Prompt, Segmented, Segmenter};
pub use self::upscaler::Upscaler;
pub use self::writer::{Untouched, Writer};
pub use self::zipped::write_zip;

use self::draft::Draft;
use self::earlier::Earlier;
use self::job::Job;
use self::squares::Unreadable;

/// The settings of a preprocessing.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The settings of the set.
    pub set: DatasetOptions<'a>,
    /// Where the masks of pictures come from that have none in the set.
    pub masks: Masks,
    /// The seed of the captions.
    pub seed: u64,
    /// How the captioner chooses words, by its name. Captions that were made in another way are made anew.
    pub caption_decoding: &'static str,
    /// The networks that there are, as far as is known before they are opened.
    pub networks: Used,
}

/// Where masks come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Masks {
    /// The set alone.
    Own,
    /// A segmenter, which finds what a prompt names.
    Prompt {
        /// What matters in the pictures.
        text: String,
        /// The factor that makes masks softer.
        temperature: f64,
    },
    /// Faces.
    Faces,
}

/// How a captioner chooses words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptionDecoding {
    /// Drawn from the likeliest.
    Sample,
    /// The likeliest.
    Greedy,
    /// The likeliest of several beginnings that are followed side by side.
    Beam,
}

/// The steps of a preprocessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Pictures are decoded, masked, cropped and resized.
    Pictures,
    /// Small squares are upscaled.
    Upscaling,
    /// Captions are written.
    Captions,
}

/// Called before each picture of a stage with the number of pictures that are done and the number of all. Also called with 0
/// done, from time to time, while the set is unpacked and its headers are read. A break stops with
/// [`DatasetError::Interrupted`].
pub type Progress<'a> = dyn FnMut(Stage, usize, usize) -> ControlFlow<()> + 'a;

/// A set whose pictures are listed, and what is to be made of each.
pub struct Preprocess<'a> {
    settings: Settings<'a>,
    photos: Photos,
    jobs: Vec<Job>,
    /// Where earlier files are.
    folder: Option<PathBuf>,
    warnings: Vec<String>,
}

impl<'a> Preprocess<'a> {
    /// Lists the pictures of the set at `path`. Of the made set in `folder`, if there is one, is taken what would be made again just
    /// the same, and what was changed by hand. Nothing is written.
    ///
    /// # Errors
    /// As [`Dataset::open`], but for the content of pictures and masks; or `folder` has files in the way that no preprocessing has
    /// made, or files that were changed by hand and cannot be used: squares and masks have the size of the resolution.
    pub fn open(
        path: &Path,
        settings: Settings<'a>,
        folder: Option<&Path>,
        progress: &mut Progress,
    ) -> Result<Preprocess<'a>, DatasetError> {
        let mut warnings = Vec::new();
        let asked = &mut |done, count| progress(Stage::Pictures, done, count);
        let mut photos = Photos::open(path, &settings.set, &mut warnings, asked)?;
        let earlier = folder.map(Earlier::open).transpose()?.flatten();
        let names = job::names(&photos.all, earlier.as_ref());
        let mut jobs = Vec::with_capacity(names.len());
        for (i, name) in names.into_iter().enumerate() {
            jobs.push(Job::new(&mut photos, i, name, &settings, folder, earlier.as_ref())?);
        }
        warnings.extend(jobs.iter().filter_map(Job::replaced));
        Ok(Preprocess { settings, photos, jobs, folder: folder.map(Path::to_path_buf), warnings })
    }

    /// Whether the made set in the folder has anything of these pictures.
    pub fn goes_on(&self) -> bool {
        self.jobs.iter().any(Job::goes_on)
    }

    /// The networks that are needed.
    pub fn needs(&self) -> Needs {
        let any = |of: fn(&Job) -> bool| self.jobs.iter().any(of);
        let networks = &self.settings.networks;
        Needs {
            mask: networks.mask != Identity::None && any(|job| job.asks_segmenter()),
            upscaler: networks.upscaler != Identity::None && any(|job| job.asks_upscaler()),
            captioner: networks.captioner != Identity::None && any(|job| job.asks_captioner()),
        }
    }

    /// Takes all steps. With a `writer`, what is made of each picture is written at once. `count_tokens` counts the tokens of a
    /// caption, including start and end. The caption has the token in its original spelling; the function must replace it first if
    /// the trainer does.
    ///
    /// # Errors
    /// As [`Dataset::open`]; or a network cannot be opened, or a file cannot be written.
    pub fn run(
        mut self,
        networks: Networks,
        mut writer: Option<&mut Writer>,
        count_tokens: &dyn Fn(&str) -> usize,
        progress: &mut Progress,
    ) -> Result<Dataset, DatasetError> {
        self.warn_without_captions(networks.caption.is_some());
        let ended = self.steps(networks, &mut writer, progress);
        // Also of an interrupted run, so that the next one goes on.
        let flushed = writer.map_or(Ok(()), Writer::flush);
        let (squares, problems) = ended?;
        flushed?;
        let warnings = self.warnings(&squares, problems);
        let (examples, records) = squares.into_iter().map(|square| (square.example, square.record)).unzip();
        Dataset::checked(examples, records, warnings, &self.settings.set, count_tokens)
    }

    /// The squares, and for each picture that cannot be read, its number and the reason.
    fn steps(
        &mut self,
        networks: Networks,
        writer: &mut Option<&mut Writer>,
        progress: &mut Progress,
    ) -> Result<(Vec<Draft>, Unreadable), DatasetError> {
        let (mut squares, problems) =
            self.squares(networks.mask, networks.upscale.is_some(), writer, progress)?;
        if squares.is_empty() {
            return Err(DatasetError::NoPicture { reason: problems.into_iter().next().map(|(_, why)| why) });
        }
        self.upscale(&mut squares, networks.upscale, writer, progress)?;
        self.caption(&mut squares, networks.caption, writer, progress)?;
        Ok((squares, problems))
    }

    /// Warns about pictures that get the prefix as their caption though others have one.
    fn warn_without_captions(&mut self, has_captioner: bool) {
        let none: Vec<&str> = (self.jobs.iter().zip(&self.photos.all))
            .filter(|(job, _)| job.asks_captioner())
            .map(|(_, photo)| photo.name.as_str())
            .collect();
        if !has_captioner && !none.is_empty() && none.len() < self.jobs.len() {
            let alone = alone(self.settings.set.caption_prefix);
            self.warnings.push(format!("no caption for {}: \"{alone}\" is used", list(&none)));
        }
    }

    /// All warnings about the set, in the order of its pictures.
    fn warnings(&mut self, squares: &[Draft], problems: Unreadable) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        let mut problems = problems.into_iter().peekable();
        let (mut seen, mut transparent) = (Seen::default(), Vec::new());
        let unreadable = |why: String| format!("{why} (left out)");
        for Draft { i, example, record, .. } in squares {
            while let Some((_, why)) = problems.next_if(|(at, _)| at < i) {
                warnings.push(unreadable(why));
            }
            warnings.extend(record.notes.iter().map(|note| note.line(&example.name)));
            if let Some(first) = seen.add(&record.pixels, &example.name) {
                warnings.push(format!("the same picture twice: {}", list(&[&first, &example.name])));
            }
            transparent.extend(record.is_transparent.then_some(example.name.as_str()));
        }
        warnings.extend(problems.map(|(_, why)| unreadable(why)));
        if !transparent.is_empty() {
            warnings.push(format!("transparent parts are learnt as white: {}", list(&transparent)));
        }
        warnings
    }
}

/// The networks that a preprocessing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// What makes masks.
    pub mask: bool,
    /// The upscaler.
    pub upscaler: bool,
    /// The captioner.
    pub captioner: bool,
}

impl Needs {
    /// Whether any network is needed.
    pub fn any(self) -> bool {
        self.mask || self.upscaler || self.captioner
    }
}

impl Dataset {
    /// Reads the set at `path` without any network: pictures without a mask are cropped in the middle, pictures without a caption
    /// get the prefix alone. `count_tokens` counts the tokens of a caption, including start and end. The caption has the token in
    /// its original spelling; the function must replace it first if the trainer does.
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
        progress: &mut crate::dataset::Progress,
    ) -> Result<Dataset, DatasetError> {
        let settings = Settings {
            set: *settings,
            masks: Masks::Own,
            seed: 0,
            caption_decoding: "",
            networks: Used::default(),
        };
        let progress = &mut |_, done, count| progress(done, count);
        Preprocess::open(path, settings, None, progress)?.run(
            Networks::default(),
            None,
            count_tokens,
            progress,
        )
    }
}
