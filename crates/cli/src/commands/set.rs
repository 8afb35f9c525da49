//! The set of a training: its pictures are listed, then prepared, with the networks that are needed for what they lack.

use std::path::Path;
use std::time::{Duration, Instant};

use calotype_models::{Component, ModelConfigs, ModelFolder};
use calotype_request::TrainInput;
use calotype_sdxl::plan::check_size;
use calotype_sdxl::token::replace_token;
use calotype_train::dataset::{Dataset, DatasetOptions};
use calotype_train::preprocess::{Preprocess, Settings, Stage, Writer};
use calotype_train::trainer::NEW_TOKENS;
use calotype_train::{Error, TrainPlan};

use super::networks::{Library, NetworkArgs};
use super::predict::DtypeName;
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

impl Source<'_> {
    /// Prepares the set. What a preprocessing has made in the folder `made` is taken where nothing has changed. With a `writer`, what
    /// is made is written at once.
    ///
    /// # Errors
    /// The set or one of its files is invalid, a network cannot be had, or the user stops it. The resolution does not suit the VAE.
    pub fn prepare(&self, made: Option<&Path>, writer: Option<&mut Writer>) -> Result<Dataset, Failure> {
        let Source { folder, configs, plan, .. } = self;
        check_size("resolution", plan.resolution, configs.vae.scale())?;
        let tokenizer =
            folder.tokenizer(Component::TextEncoder2, &configs.text_encoder_2).map_err(Error::from)?;
        let (tokenizer, _) = tokenizer.with_tokens(&NEW_TOKENS.map(String::from)).map_err(Error::from)?;
        // A caption that the tokenizer cannot encode is refused later, where it is encoded.
        let count = |caption: &str| {
            tokenizer.count(&replace_token(caption, &plan.token_string, &NEW_TOKENS.concat())).unwrap_or(0)
        };
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
        let listed = Preprocess::open(&plan.input_images, settings, made, &mut |_, _, _| interrupt::flow());
        let listed = listed.map_err(Error::from)?;
        let networks = library.networks(listed.needs(), &masks, self.quiet)?;
        let mut stages = Stages::new(networks.mask.is_some(), self.quiet);
        let prepared = listed.run(networks, writer, &count, &mut |stage, done, count| {
            stages.step(stage, done, count);
            interrupt::flow()
        });
        stages.finish(prepared.is_ok());
        Ok(prepared.map_err(Error::from)?)
    }
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
