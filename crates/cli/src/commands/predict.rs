//! `calotype predict`: pictures from texts and from other pictures.

use std::ops::ControlFlow;
use std::path::PathBuf;

use calotype_request::PredictInput;
use calotype_sdxl::adapters::AdapterError;
use calotype_sdxl::pipeline::{Image, Pipeline};
use calotype_sdxl::{PredictPlan, Refine};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde_json::Value;

use crate::args::Verbosity;
use crate::failure::Failure;
use crate::output::{self, OutputDir};
use crate::predictor::{Predictor, PredictorArgs};
use crate::previews::Previews;
use crate::progress::Progress;
use crate::{fields, interrupt, pocket, safety};

/// What is not part of the request.
#[derive(Debug, Args)]
struct PredictArgs {
    #[command(flatten)]
    predictor: PredictorArgs,
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
    let plan = settings.predictor.plan(&given)?;
    let output = OutputDir::check(&settings.output)?;
    let paths = settings.predictor.model.paths(quiet)?;
    interrupt::install().map_err(Failure::signals)?;

    let mut predictor = Predictor::open(settings.predictor.clone(), &paths)?;
    if plan.refine == Refine::NoRefiner && settings.predictor.refiner.is_some() {
        tracing::warn!("--refiner: no effect without refine");
    }
    predictor = predictor.with_refiner_for(&plan, quiet)?;
    if let Some(given) = &settings.preview_vae {
        predictor = predictor.with_preview_vae(given, quiet)?;
    }
    let plan = predictor.settled(plan, &given)?;
    let unasked = settings.predictor.is_unasked();
    let disabled = given.get("disable_safety_checker").and_then(Value::as_bool);
    let safety = predictor.safety(disabled == Some(true), quiet)?;
    // The pocket model knows nothing that would be flagged.
    let unchecked = safety.is_none() && disabled.map_or(!unasked, |disabled| !disabled);
    let pipeline = &predictor.pipeline;
    let unchosen = settings.predictor.empty_negative.is_none() && pipeline.diffusers_gives_zeros(&plan);
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
    let images = sample(pipeline, &plan, progress, &mut previews)?;
    let images = images.map_err(|e| refused(e, unasked))?;
    if let Some(line) = predictor.without_watermark(&plan, &given, &images) {
        tracing::warn!("{line}");
    }
    save_unflagged(&images, &safety::reasons(safety.as_ref(), &images), |image, skipped| {
        let path = output.write("png", skipped, |file| predictor.write_png(file, image, &plan))?;
        output::print(&format!("{}\n", path.display()))
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

/// `seed 7`, or for several pictures `seeds 7, 8, 9`.
fn seeds(plan: &PredictPlan) -> String {
    let seeds: Vec<String> = (0..plan.num_outputs).map(|i| plan.image_seed(i).to_string()).collect();
    format!("seed{} {}", if seeds.len() > 1 { "s" } else { "" }, seeds.join(", "))
}
