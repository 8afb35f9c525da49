//! `settings.json`: everything that a run depends on, so that it can be resumed without giving it again.

use std::path::{Path, PathBuf};

use calotype_models::{ModelConfigs, ModelFolder, ModelPaths};
use calotype_request::{TrainInput, epochs};
use calotype_train::TrainPlan;
use calotype_train::checkpoint;
use calotype_train::dataset::{self, Example};
use calotype_train::stop::Stop;
use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::args::{Recompute, TrainArgs};
use crate::commands::networks::NetworkArgs;
use crate::dtype::DtypeName;
use crate::failure::Failure;
use crate::model::model_folder;
use crate::plans;

/// Denoising steps of samples.
const SAMPLE_STEPS: usize = 25;

/// The fields that may change when a run is resumed.
const CHANGEABLE: [&str; 4] = ["input_images", "input_images_filetype", "max_train_steps", "verbose"];

/// The settings of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of calotype that began the run.
    pub calotype: String,
    /// The absolute path of the model's folder or file.
    pub model: PathBuf,
    /// The other paths of `--config` and `--vae`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
    /// The networks that make what the set lacks.
    #[serde(default)]
    pub networks: NetworkArgs,
    pub dtype: DtypeName,
    pub recompute: Recompute,
    /// The path of the result, if the user gave it.
    pub output: Option<PathBuf>,
    pub sample_every: Option<usize>,
    pub sample_prompts: Vec<String>,
    pub sample_steps: usize,
    pub validate_every: usize,
    /// Whether `validate_every` was not given.
    #[serde(skip)]
    pub validates_by_default: bool,
    pub keep_checkpoints: usize,
    /// Checksums of the model's files and of the set. A run cannot be resumed with others.
    pub weights: String,
    pub set: String,
    /// The request, with its seed. It makes the same run again.
    pub request: TrainInput,
    /// The plan that follows from the request.
    pub plan: TrainPlan,
    /// The trained weights that the run begins from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Initial>,
    /// Seconds after which a checkpoint is written besides those of the plan. Not a setting of the run, but of the process.
    #[serde(skip)]
    pub checkpoint_seconds: Option<u32>,
    /// The number of steps that the run had, if it was resumed with another number.
    #[serde(skip)]
    pub steps_before: Option<usize>,
}

/// The trained weights that a run begins from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Initial {
    pub path: PathBuf,
    /// A CRC-32 of the initial values of the trained parameters; `None` before the weights have been read.
    pub crc32: Option<String>,
}

impl Initial {
    pub fn new(path: &Path) -> Initial {
        Initial { path: absolute(path), crc32: None }
    }
}

impl Record {
    /// The settings of a new run. [`Self::with_model`] and [`Self::with_set`] add what depends on the model and the set.
    ///
    /// # Errors
    /// A field or another setting is invalid.
    pub fn new(given: &Map<String, Value>, settings: &TrainArgs, quiet: bool) -> Result<Record, Failure> {
        let request = TrainInput::from_json(given.clone())?;
        let given_options = settings.options.given()?;
        let options = plans::train_options(given_options.clone())?;
        let plan = plans::train(request.clone(), options)?;
        for name in plan.without_effect() {
            if given.contains_key(*name) || given_options.contains_key(*name) {
                tracing::warn!("{name}: changes nothing in this kind of training");
            }
        }
        if settings.sample_every.is_none() && !settings.sample_prompt.is_empty() {
            tracing::warn!("--sample-prompt: no samples are made without --sample-every");
        }
        for name in plans::masks_without_effect(given, &plans::masks(&request)?) {
            tracing::warn!("{name}: changes nothing with these masks");
        }
        let networks = settings.networks.absolute()?;
        let paths = settings.model.paths(quiet)?;
        let mut prompts = settings.sample_prompt.clone();
        if prompts.is_empty() {
            prompts.push(plan.caption_prefix.trim_end_matches([' ', ',']).to_owned());
        }
        let count = |n: Option<u32>| n.map(|n| n as usize);
        Ok(Record {
            calotype: env!("CARGO_PKG_VERSION").into(),
            model: absolute(&paths.model),
            config: paths.config.as_deref().map(absolute),
            vae: paths.vae.as_deref().map(absolute),
            networks,
            dtype: DtypeName::or_native(settings.dtype),
            recompute: settings.recompute.unwrap_or(Recompute::Auto),
            output: settings.output.as_deref().map(absolute),
            sample_every: count(settings.sample_every),
            sample_prompts: prompts,
            sample_steps: SAMPLE_STEPS,
            validate_every: count(settings.validate_every).unwrap_or_else(|| validate_every(&plan)),
            validates_by_default: settings.validate_every.is_none(),
            keep_checkpoints: count(settings.keep_checkpoints).unwrap_or(2),
            weights: String::new(),
            set: String::new(),
            request,
            plan,
            initial: None,
            checkpoint_seconds: settings.checkpoint_seconds,
            steps_before: None,
        })
    }

    /// The paths of the model's files.
    pub fn paths(&self) -> ModelPaths {
        ModelPaths { model: self.model.clone(), config: self.config.clone(), vae: self.vae.clone() }
    }

    /// Adds the settings that depend on the model.
    pub fn with_model(
        mut self,
        given: &Map<String, Value>,
        configs: &ModelConfigs,
        weights: String,
    ) -> Record {
        self.weights = weights;
        self.plan = plans::train_at_native_size(self.plan, given, configs.native_size());
        self.request.resolution = self.plan.resolution;
        self
    }

    /// Adds the settings that depend on the set.
    pub fn with_set(mut self, given: &Map<String, Value>, examples: &[Example]) -> Record {
        if let Some(epochs) = epochs(given) {
            self.plan = self.plan.for_epochs(epochs, examples.len());
            if self.validates_by_default {
                self.validate_every = validate_every(&self.plan);
            }
        }
        self.set = set(examples);
        self.plan.input_images = absolute(&self.plan.input_images);
        self.request.input_images = self.plan.input_images.to_string_lossy().into_owned();
        self.request.seed = Some(self.plan.seed);
        self.request.max_train_steps = self.plan.steps;
        self
    }

    /// Applies the settings that may change when the run in `dir` is resumed: those without effect on the result, the new
    /// places of its set and model (which are identified by checksums), and the number of steps.
    ///
    /// # Errors
    /// Other settings were given that differ from the run's. The error names all of them.
    pub fn resumed(
        mut self,
        dir: &Path,
        given: &Map<String, Value>,
        settings: &TrainArgs,
        matches: &ArgMatches,
    ) -> Result<Record, Failure> {
        let different = self.different(given, settings)?;
        if !different.is_empty() {
            let what = different.join("; ");
            let problem = format!("--resume {}: the run has other settings: {what}", dir.display());
            return Err(Failure::BadInput(problem));
        }
        self.recompute = settings.recompute.unwrap_or(self.recompute);
        self.checkpoint_seconds = settings.checkpoint_seconds;
        self.output = match settings.output.as_deref() {
            Some(output) => Some(absolute(output)),
            None => self.output_within(dir),
        };
        self.keep_checkpoints = settings.keep_checkpoints.map_or(self.keep_checkpoints, |n| n as usize);
        // A model from the environment is not a setting of this command line.
        if matches.value_source("model") == Some(ValueSource::CommandLine)
            && let Some(model) = &settings.model.model
        {
            self.model = absolute(&model_folder(Some(model), true)?);
        }
        let others = settings.model.others(true)?;
        self.config = others.config.as_deref().map(absolute).or(self.config);
        self.vae = others.vae.as_deref().map(absolute).or(self.vae);
        self.take_stop(settings)?;
        self.take_input_images(given)?;
        self.take_steps(given, checkpoint::newest(dir).unwrap_or(0))?;
        Ok(self)
    }

    /// An error if initial weights are given that are not the run's.
    pub fn check_initial(&self, dir: &Path, given: Option<&Path>) -> Result<(), Failure> {
        let own = self.initial.as_ref().map(|initial| initial.path.clone());
        match given.map(absolute) {
            Some(given) if own.as_ref() != Some(&given) => {
                let own = own.map_or("none".into(), |own| own.display().to_string());
                let problem = format!("replicate_weights: expected {own}, found {}", given.display());
                Err(Failure::BadInput(format!(
                    "--resume {}: the run has other settings: {problem}",
                    dir.display()
                )))
            }
            _ => Ok(()),
        }
    }

    /// The output path of the settings, if it is in the run's folder. The settings may come from somebody else.
    fn output_within(&self, dir: &Path) -> Option<PathBuf> {
        let output = self.output.clone()?;
        let is_own = output.symlink_metadata().map_or(true, |found| found.is_file());
        if is_own && output.parent().is_some_and(|parent| absolute(parent) == absolute(dir)) {
            return Some(output);
        }
        tracing::warn!(
            "settings.json: output: {} is not in the run's folder, where the result goes unless -o says otherwise",
            output.display()
        );
        None
    }

    /// Applies the new place of the set.
    fn take_input_images(&mut self, given: &Map<String, Value>) -> Result<(), Failure> {
        if let Some(path) = given.get("input_images").and_then(Value::as_str) {
            self.plan.input_images = absolute(Path::new(path));
            self.request.input_images = self.plan.input_images.to_string_lossy().into_owned();
        }
        self.request = self.request_with(given, "input_images_filetype")?;
        self.plan.input_images_filetype = plans::file_type(self.request.input_images_filetype);
        Ok(())
    }

    /// Lets a run that may end before its last step take all of its steps.
    fn take_stop(&mut self, settings: &TrainArgs) -> Result<(), Failure> {
        if settings.options.given()?.get("stop") == Some(&Value::from("off")) {
            self.plan.options.stop = Stop::Off;
        }
        Ok(())
    }

    /// Applies the number of steps, for a run with `done` steps done.
    fn take_steps(&mut self, given: &Map<String, Value>, done: usize) -> Result<(), Failure> {
        self.request = self.request_with(given, "max_train_steps")?;
        let (before, steps) = (self.plan.steps, self.request.max_train_steps);
        if steps != before {
            self.plan = self.plan.clone().with_steps(steps, done)?;
            self.steps_before = Some(before);
        }
        Ok(())
    }

    /// The request with one field replaced by the given value, if given, and checked.
    fn request_with(&self, given: &Map<String, Value>, name: &str) -> Result<TrainInput, Failure> {
        let Some(value) = given.get(name) else { return Ok(self.request.clone()) };
        let json = serde_json::to_value(&self.request).unwrap_or_default();
        let mut request = json.as_object().cloned().unwrap_or_default();
        request.insert(name.into(), value.clone());
        Ok(TrainInput::from_json(request)?)
    }

    /// The given settings that differ from the run's, each as `name: expected …, found …`.
    fn different(&self, given: &Map<String, Value>, settings: &TrainArgs) -> Result<Vec<String>, Failure> {
        let json = |e: serde_json::Error| Failure::Failed(format!("settings: {e}"));
        let request = serde_json::to_value(&self.request).map_err(json)?;
        let options = serde_json::to_value(&self.plan.options).map_err(json)?;
        let given_options = settings.options.given()?;
        let checked = serde_json::to_value(plans::train_options(given_options.clone())?).map_err(json)?;
        let mut pairs: Vec<(String, Value, Value)> = Vec::new();
        for (name, value) in given.iter().filter(|(name, _)| !CHANGEABLE.contains(&name.as_str())) {
            pairs.push((name.clone(), request[name].clone(), value.clone()));
        }
        // A run that may end before its last step can go on to that.
        let goes_on = |name: &str| name == "stop" && checked[name] == "off";
        for name in given_options.keys().filter(|name| !goes_on(name)) {
            pairs.push((name.clone(), options[name].clone(), checked[name].clone()));
        }
        let mut option = |name: &str, run: Value, given: Option<Value>| {
            pairs.extend(given.map(|given| (name.to_owned(), run, given)));
        };
        let dtype = |dtype: DtypeName| Value::from(calotype_tensor::DType::from(dtype).to_string());
        option("--dtype", dtype(self.dtype), settings.dtype.map(dtype));
        let networks = self.networks.given();
        for (name, value) in settings.networks.absolute()?.given() {
            let run = networks.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
            option(name, run.into(), Some(value.into()));
        }
        option("--sample-every", self.sample_every.into(), settings.sample_every.map(Value::from));
        option("--validate-every", self.validate_every.into(), settings.validate_every.map(Value::from));
        let prompts = Some(&settings.sample_prompt).filter(|prompts| !prompts.is_empty());
        option("--sample-prompt", self.sample_prompts.clone().into(), prompts.cloned().map(Value::from));
        let differ = pairs.into_iter().filter(|(_, run, given)| !same(run, given));
        let expected = |run: Value| match run {
            Value::Null => "the run's default (it was not given)".to_owned(),
            run => run.to_string(),
        };
        Ok(differ
            .map(|(name, run, given)| format!("{name}: expected {}, found {given}", expected(run)))
            .collect())
    }
}

/// The steps between validations, if they are not given. A run that ends when its validation loss has stopped falling needs more of
/// them.
fn validate_every(plan: &TrainPlan) -> usize {
    match plan.options.stop {
        Stop::Off => plan.checkpointing_steps,
        Stop::Auto => (plan.steps / 40).clamp(1, plan.checkpointing_steps),
    }
}

/// Whether two JSON values are equal, numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// The absolute form of a path.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into())
}

/// A checksum that identifies the model.
///
/// # Errors
/// A file of the model is missing or invalid.
pub fn weights(folder: &ModelFolder) -> Result<String, Failure> {
    Ok(format!("{:08x}", folder.fingerprint()?))
}

/// A checksum that identifies the set.
pub fn set(examples: &[Example]) -> String {
    format!("{:08x}", dataset::fingerprint(examples))
}
