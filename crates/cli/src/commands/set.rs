//! The set of a training: its pictures are listed, then prepared, with the networks that are needed for what they lack.

use std::path::Path;
use std::time::{Duration, Instant};

use calotype_models::{Component, ModelConfigs, ModelFolder, Tokenizer};
use calotype_request::TrainInput;
use calotype_sdxl::plan::check_size;
use calotype_sdxl::token::replace_token;
use calotype_train::dataset::{Dataset, DatasetOptions};
use calotype_train::preprocess::{Masks, Preprocess, Settings, Stage, Writer};
use calotype_train::trainer::NEW_TOKENS;
use calotype_train::{Error, TrainPlan};

use super::networks::{Library, NetworkArgs};
use crate::dtype::DtypeName;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::{interrupt, plans};

/// Work that takes no longer than this shows no progress.
pub const SHORT: Duration = Duration::from_secs(2);

/// What a set is prepared from.
pub struct Source<'a> {
    pub folder: &'a ModelFolder,
    pub configs: &'a ModelConfigs,
    pub request: &'a TrainInput,
    pub plan: &'a TrainPlan,
    pub networks: &'a NetworkArgs,
    /// Of the networks.
    pub dtype: DtypeName,
    pub quiet: bool,
}

/// A set whose pictures are listed.
pub struct Listed<'a> {
    preprocess: Preprocess<'a>,
    library: Library,
    masks: Masks,
    tokenizer: Tokenizer,
    token: &'a str,
    quiet: bool,
}

impl<'a> Source<'a> {
    /// Lists the pictures of the set. Of the made set in `folder`, if there is one, is taken what would be made again just the same, and
    /// what was changed by hand.
    ///
    /// # Errors
    /// The set, or a file in `folder`, is invalid, or the user stops it. The resolution does not suit the VAE.
    pub fn list(&self, made_set: Option<&Path>) -> Result<Listed<'a>, Failure> {
        let Source { folder, configs, plan, .. } = self;
        check_size("resolution", plan.resolution, configs.vae.scale())?;
        let tokenizer =
            folder.tokenizer(Component::TextEncoder2, &configs.text_encoder_2).map_err(Error::from)?;
        let (tokenizer, _) = tokenizer.with_tokens(&NEW_TOKENS.map(String::from)).map_err(Error::from)?;
        let masks = plans::masks(self.request)?;
        let library = Library::new(self.networks, folder, configs, self.dtype.into());
        let settings = Settings {
            set: DatasetOptions {
                resolution: plan.resolution,
                file_type: plan.input_images_filetype,
                token_string: &plan.token_string,
                caption_prefix: &plan.caption_prefix,
                crop_based_on_salience: plan.crop_based_on_salience,
            },
            networks: library.used(&masks),
            masks: masks.clone(),
            seed: plan.seed,
            caption_decoding: library.decoding(),
        };
        let asked = &mut |_, _, _| interrupt::flow();
        let preprocess = Preprocess::open(&plan.input_images, settings, made_set, asked);
        let preprocess = preprocess.map_err(Error::from)?;
        Ok(Listed { preprocess, library, masks, tokenizer, token: &plan.token_string, quiet: self.quiet })
    }
}

impl Listed<'_> {
    /// Whether any network has anything to make.
    pub fn needs_networks(&self) -> bool {
        self.preprocess.needs().any()
    }

    /// Whether the made set has anything of these pictures.
    pub fn goes_on(&self) -> bool {
        self.preprocess.goes_on()
    }

    /// Prepares the set. `open_writer` is called once the networks are there. With a writer, each file is written as soon as a network has made it.
    ///
    /// # Errors
    /// A file of the set is invalid, a network cannot be had, or the user stops it.
    pub fn prepare(
        self,
        open_writer: impl FnOnce() -> Result<Option<Writer>, Failure>,
    ) -> Result<(Dataset, Option<Writer>), Failure> {
        let Listed { preprocess, library, masks, tokenizer, token, quiet } = self;
        // A caption that the tokenizer cannot encode is refused later, where it is encoded.
        let count = |caption: &str| {
            tokenizer.count(&replace_token(caption, token, &NEW_TOKENS.concat())).unwrap_or(0)
        };
        let networks = library.networks(preprocess.needs(), &masks, quiet)?;
        let mut writer = open_writer()?;
        let mut stages = Stages::new(networks.mask.is_some(), quiet);
        let prepared = preprocess.run(networks, writer.as_mut(), &count, &mut |stage, done, count| {
            stages.step(stage, done, count);
            interrupt::flow()
        });
        stages.finish(prepared.is_ok());
        Ok((prepared.map_err(Error::from)?, writer))
    }
}

/// Ends the made set in `folder`, and says which files stay as they are.
///
/// # Errors
/// A file cannot be written or removed.
pub fn finish(writer: Option<Writer>, dataset: &Dataset, folder: &Path) -> Result<(), Failure> {
    let Some(writer) = writer else { return Ok(()) };
    let untouched = writer.finish(dataset).map_err(Error::from)?;
    untouched.lines(folder).iter().for_each(|line| tracing::warn!("{line}"));
    Ok(())
}

/// A bar for each stage in which a network works, if it takes a while.
struct Stages {
    masks: bool,
    quiet: bool,
    current: Option<Bar>,
}

struct Bar {
    stage: Stage,
    start: Instant,
    progress: Progress,
    /// The pictures of the stage, once the bar is shown.
    shown: Option<usize>,
}

impl Stages {
    fn new(masks: bool, quiet: bool) -> Stages {
        Stages { masks, quiet, current: None }
    }

    fn step(&mut self, stage: Stage, done: usize, count: usize) {
        let title = match stage {
            Stage::Pictures if self.masks => "finding what matters in the pictures",
            Stage::Pictures => return,
            Stage::Upscaling => "upscaling small pictures",
            Stage::Captions => "writing captions",
        };
        if self.current.as_ref().is_none_or(|bar| bar.stage != stage) {
            self.finish(true);
            let progress = Progress::start(title.to_owned(), self.quiet);
            self.current = Some(Bar { stage, start: Instant::now(), progress, shown: None });
        }
        if let Some(bar) = &mut self.current
            && bar.start.elapsed() > SHORT
        {
            bar.shown = Some(count);
            bar.progress.step(done, count);
        }
    }

    fn finish(&mut self, is_complete: bool) {
        if let Some(mut bar) = self.current.take() {
            if let (true, Some(count)) = (is_complete, bar.shown) {
                bar.progress.step(count, count);
            }
            bar.progress.finish();
        }
    }
}
