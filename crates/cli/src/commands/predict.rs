//! `calotype predict`: pictures from texts and from other pictures.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_models::ModelFolder;
use calotype_request::PredictInput;
use calotype_sdxl::adapters::AdapterError;
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};
use calotype_sdxl::prompt::{LongPrompts, PromptSyntax};
use calotype_sdxl::samplers::Spacing;
use calotype_sdxl::watermark::{self, MIN_SIDE};
use calotype_sdxl::{ArgumentError, PredictPlan, Refine};
use calotype_tensor::DType;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::model::{self, ModelArgs};
use crate::args::Verbosity;
use crate::failure::Failure;
use crate::infotext::{self, Maker};
use crate::output::{self, OutputDir};
use crate::previews::Previews;
use crate::progress::Progress;

use crate::{fields, hub, interrupt, picture, plans, pocket, safety};

/// What is not part of the request.
#[derive(Debug, Args)]
struct PredictArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The refiner, for the field `refine`: a folder, its name on a hub, or a single file [default: SDXL's own, if the model is as large]
    #[arg(long, value_name = "DIR|NAME|FILE")]
    refiner: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    /// Number format of the networks [default: bf16 where the CPU has instructions for it, else f32]
    #[arg(long, value_enum)]
    dtype: Option<DtypeName>,
    /// Which of torch's random generators a seed is for
    #[arg(long, value_enum, default_value = "cpu")]
    rng: RngName,
    /// What becomes of an empty negative prompt: its encoding, or zeros, as diffusers has it for most models [default: encode]
    #[arg(long, value_enum, value_name = "WHAT")]
    empty_negative: Option<EmptyName>,
    /// Which of the training timesteps the steps visit; models for few steps need trailing [default: as the model's scheduler says]
    #[arg(long, value_enum, value_name = "SPACING")]
    timestep_spacing: Option<SpacingName>,
    /// What becomes of prompts over 77 tokens: chunks of 75, as in the web UIs, or their end is cut off, as in diffusers
    #[arg(long, value_enum, default_value = "chunk", value_name = "WHAT")]
    long_prompts: LongName,
    /// Read (word:1.2), ((word)), [word] and BREAK in prompts as A1111's web UI does; otherwise they are text
    #[arg(long)]
    prompt_weights: bool,
    /// Threads to compute with; the pictures are the same for any number [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// A safety checker: its folder as diffusers writes it, that of a model with one, or the name of either on a hub [default:
    /// safety_checker in the model's folder]
    #[arg(long, value_name = "DIR|NAME")]
    safety_checker: Option<PathBuf>,
    /// Every N steps, write what the picture is going to be as out-<n>.preview.png; removed when the command ends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    preview_every: Option<u32>,
    /// A small decoder for previews, diffusers' AutoencoderTiny (TAESD): its folder or its name on the hub, such as
    /// madebyollin/taesdxl [default: a linear map, which shows less detail]
    #[arg(long, value_name = "DIR|NAME", requires = "preview_every")]
    preview_vae: Option<PathBuf>,
    /// Directory for the pictures: out-<n>.png, counting on from what is there
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    Cpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtypeName {
    /// bfloat16
    Bf16,
    /// 32-bit floats
    F32,
}

impl From<DtypeName> for DType {
    fn from(name: DtypeName) -> DType {
        match name {
            DtypeName::Bf16 => DType::BF16,
            DtypeName::F32 => DType::F32,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RngName {
    Cpu,
    Cuda,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EmptyName {
    Encode,
    Zeros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SpacingName {
    Leading,
    Trailing,
    Linspace,
}

impl From<SpacingName> for Spacing {
    fn from(name: SpacingName) -> Spacing {
        match name {
            SpacingName::Leading => Spacing::Leading,
            SpacingName::Trailing => Spacing::Trailing,
            SpacingName::Linspace => Spacing::Linspace,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LongName {
    Chunk,
    Truncate,
}

/// The refiner that was trained for SDXL.
const REFINER: &str = "stabilityai/stable-diffusion-xl-refiner-1.0";

/// Printed if diffusers' pipeline makes another picture of the same request, and the user has not chosen.
const EMPTY_NEGATIVE: &str =
    "no negative prompt: the empty one is encoded, where diffusers gives zeros (--empty-negative zeros)";

/// The command's options, and a flag for every field of the request.
pub fn options(command: Command) -> Command {
    // The about comes last, because the arguments' doc comment would replace it.
    let command = PredictArgs::augment_args(command).about("Make pictures from a prompt");
    fields::options(command, &PredictInput::command_line_schema())
}

/// Checks everything that can be checked early, then makes the pictures and writes them.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = PredictArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    let given = fields::given(&PredictInput::command_line_schema(), matches)?;
    let plan = plans::predict(PredictInput::from_command_line(given.clone())?)?;
    let plan = PredictPlan { timestep_spacing: settings.timestep_spacing.map(Spacing::from), ..plan };
    let output = OutputDir::check(&settings.output)?;
    let paths = settings.model.paths(quiet)?;
    interrupt::install().map_err(Failure::signals)?;
    let mut maker = settings.maker(&paths.model);
    tracing::info!("model {}, {}, {} threads", maker.model, maker.dtype, rayon::current_num_threads());

    let folder = ModelFolder::open_paths(&paths).map_err(calotype_sdxl::Error::from)?;
    let mut pipeline = Pipeline::of(folder, settings.options())?;
    if let Some(refiner) = settings.refiner(&plan, &pipeline)? {
        let folder = model::named("--refiner", &refiner, quiet);
        let folder = folder.map_err(|failure| match settings.refiner {
            None => failure.with("(SDXL's refiner, some 6 GB; --refiner names another)"),
            Some(_) => failure,
        })?;
        pipeline = pipeline.with_refiner(&folder)?;
        maker.refiner = Some(name_of(Some(&refiner), &folder));
    }
    if let Some(given) = &settings.preview_vae {
        let folder = hub::component(hub::Kind::PreviewVae, given, quiet)?;
        pipeline = pipeline.with_preview_vae(&folder)?;
    }
    let plan = plans::predict_at_size(plan, &given, &pipeline)?;
    let plan = PredictPlan { prompt_syntax: settings.prompt_syntax(), ..plan };
    let unasked = settings.model.model.is_none();
    let disabled = given.get("disable_safety_checker").and_then(Value::as_bool);
    let checker = settings.safety_checker.as_deref();
    let safety = safety::open(checker, &paths.model, disabled == Some(true), quiet)?;
    // The pocket model knows nothing that would be flagged.
    let unchecked = safety.is_none() && disabled.map_or(!unasked, |disabled| !disabled);
    let unchosen = settings.empty_negative.is_none() && pipeline.diffusers_gives_zeros(&plan);
    let lines = [
        unasked.then(|| pocket::NOTICE.to_string()),
        Some(seeds(&plan)),
        unchosen.then(|| EMPTY_NEGATIVE.to_string()),
        unchecked.then(|| safety::NOTICE.to_string()),
    ];
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    let every = settings.preview_every.map_or(0, |every| every as usize);
    let mut previews = Previews::new(&output, every);
    let progress = Progress::start(lines.join("\n"), quiet);
    let images = sample(&pipeline, &plan, progress, &mut previews)?;
    let images = images.map_err(|e| refused(e, unasked))?;
    if let Some(line) = without_watermark(&plan, &given, &images, pipeline.native_size()) {
        tracing::warn!("{line}");
    }
    save_unflagged(&images, &safety::reasons(safety.as_ref(), &images), |image, skipped| {
        save(image, &plan, &maker, &output, skipped)
    })
}

/// Saves the pictures without a reason against it. `save` gets the number of pictures left out since the one before, whose
/// numbers stay free.
fn save_unflagged(
    images: &[Image],
    reasons: &[Option<String>],
    save: impl Fn(&Image, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut skipped = 0;
    for (i, (image, reason)) in images.iter().zip(reasons).enumerate() {
        if let Some(reason) = reason {
            // Even where only errors are printed: a picture is missing.
            output::note(&format!("picture {} (seed {}) is not written: {reason}", i + 1, image.seed));
            skipped += 1;
            continue;
        }
        save(image, std::mem::take(&mut skipped))?;
    }
    match reasons.iter().all(Option::is_some) {
        true => Err(Failure::Failed("no picture is left: the safety checker flagged all".into())),
        false => Ok(()),
    }
}

/// The line that pictures are too small for the watermark. A small model's pictures always are: there the line is for those who
/// have asked for the watermark.
fn without_watermark(
    plan: &PredictPlan,
    given: &Map<String, Value>,
    images: &[Image],
    native: Option<usize>,
) -> Option<String> {
    let small = |image: &&Image| !watermark::fits(image.width, image.height);
    let image = images.iter().find(small).filter(|_| plan.apply_watermark)?;
    let expected = given.contains_key("apply_watermark") || native.is_none_or(|side| side >= MIN_SIDE);
    let (width, height) = (image.width, image.height);
    expected.then(|| format!("no watermark: {width} × {height} is below {MIN_SIDE} × {MIN_SIDE} pixels"))
}

/// The failure of a prediction. Whose trained weights do not suit the model is told which one it is, if nobody has chosen it.
fn refused(error: calotype_sdxl::Error, unasked: bool) -> Failure {
    use calotype_sdxl::Error::Adapter;
    let is_other = matches!(error, Adapter(AdapterError::Unsuitable { .. }));
    let failure = Failure::from(error);
    if unasked && is_other { failure.with("(the model is pocket: --model names another)") } else { failure }
}

/// Makes the pictures, with progress and previews. Stops at the next step after a signal.
fn sample(
    pipeline: &Pipeline,
    plan: &PredictPlan,
    mut progress: Progress,
    previews: &mut Previews,
) -> Result<Result<Vec<Image>, calotype_sdxl::Error>, Failure> {
    let mut unwritten = None;
    let images = pipeline.predict(plan, &mut |step| {
        if step.step > 0 {
            progress.step(step.step, step.steps);
        }
        let written = step.preview.map_or(Ok(()), |preview| previews.step(&preview));
        if let Err(failure) = written {
            unwritten = Some(failure);
            return ControlFlow::Break(());
        }
        interrupt::flow()
    });
    progress.finish();
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    // A signal may also arrive while the pictures are decoded.
    if interrupt::asked() { Err(Failure::Interrupted) } else { Ok(images) }
}

/// Writes a picture and prints its path. `skipped` numbers before its own stay free.
fn save(
    image: &Image,
    plan: &PredictPlan,
    maker: &Maker,
    output: &OutputDir,
    skipped: u64,
) -> Result<(), Failure> {
    let texts = [
        ("parameters", infotext::automatic1111(plan, image.seed, maker)),
        ("calotype", infotext::json(plan, image.seed, maker)),
    ];
    let size = (image.width, image.height);
    let path = output.write("png", skipped, |file| picture::write_png(file, size, &image.rgb, &texts))?;
    output::print(&format!("{}\n", path.display()))
}

/// `seed 7`, or for several pictures `seeds 7, 8, 9`.
fn seeds(plan: &PredictPlan) -> String {
    let seeds: Vec<String> = (0..plan.num_outputs).map(|i| plan.image_seed(i).to_string()).collect();
    format!("seed{} {}", if seeds.len() > 1 { "s" } else { "" }, seeds.join(", "))
}

impl PredictArgs {
    fn options(&self) -> Options {
        // The only device.
        let Device::Cpu = self.device;
        Options {
            dtype: super::dtype(self.dtype).into(),
            rng: match self.rng {
                RngName::Cpu => Rng::Cpu,
                RngName::Cuda => Rng::Cuda,
            },
            empty_negative: match self.empty_negative {
                Some(EmptyName::Zeros) => EmptyNegative::Zeros,
                Some(EmptyName::Encode) | None => EmptyNegative::Encode,
            },
        }
    }

    fn prompt_syntax(&self) -> PromptSyntax {
        let long = match self.long_prompts {
            LongName::Chunk => LongPrompts::Chunk,
            LongName::Truncate => LongPrompts::Truncate,
        };
        PromptSyntax { long, weights: self.prompt_weights }
    }

    fn maker(&self, folder: &Path) -> Maker {
        Maker {
            model: name_of(self.model.model.as_deref(), folder),
            dtype: super::dtype(self.dtype).into(),
            rng: match self.rng {
                RngName::Cpu => "cpu",
                RngName::Cuda => "cuda",
            },
            empty_negative: match self.empty_negative {
                Some(EmptyName::Zeros) => "zeros",
                Some(EmptyName::Encode) | None => "encode",
            },
            refiner: None,
        }
    }

    /// The refiner that the plan needs.
    fn refiner(&self, plan: &PredictPlan, pipeline: &Pipeline) -> Result<Option<PathBuf>, Failure> {
        if plan.refine == Refine::NoRefiner && self.refiner.is_some() {
            tracing::warn!("--refiner: no effect without refine");
        }
        // With 1, the base model makes all steps.
        let all_base = plan.refine == Refine::ExpertEnsembleRefiner && plan.high_noise_frac >= 1.0;
        if plan.refine == Refine::NoRefiner || all_base {
            return Ok(None);
        }
        match &self.refiner {
            Some(refiner) => Ok(Some(refiner.clone())),
            None if pipeline.is_sdxl() => Ok(Some(REFINER.into())),
            None => {
                let expected = "--refiner, as no refiner is known for this model";
                Err(ArgumentError::new("refine", expected, "none").into())
            }
        }
    }
}

/// The name of a model: as given if that is a name on a hub, else that of its folder.
fn name_of(given: Option<&Path>, folder: &Path) -> String {
    // The full path of a folder given as `.` has its name. A folder of a hub's cache is named by its revision there.
    let full = folder.canonicalize().unwrap_or_else(|_| folder.into());
    let named = || full.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let given = given.filter(|given| *given != folder).and_then(Path::to_str);
    given.map_or_else(named, String::from)
}
