//! `calotype preprocess`: what a training does with its pictures before it trains, to look at and to correct before.

use std::path::{Path, PathBuf};

use calotype_models::ModelFolder;
use calotype_request::TrainInput;
use calotype_train::dataset::Dataset;
use calotype_train::preprocess::Writer;
use calotype_train::trainer::check_model;
use calotype_train::{Error, TrainOptions, TrainPlan};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value, json};

use super::networks::NetworkArgs;
use super::set::{self, Source};
use crate::args::{self, Verbosity};
use crate::dtype::DtypeName;
use crate::failure::Failure;
use crate::model::ModelArgs;
use crate::{fields, interrupt, output, plans, pocket};

const INPUT: &str = "input_images";

#[derive(Debug, Args)]
struct PreprocessArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The pictures: a folder, a .zip, a .tar or a .tar.gz
    #[arg(value_name = "PHOTOS")]
    photos: Option<String>,
    /// Folder for the set that is made. What was made there before is made anew only where something has changed; files that were
    /// changed by hand stay
    #[arg(short, long, value_name = "SET", required = true)]
    output: PathBuf,
    #[command(flatten)]
    networks: NetworkArgs,
    /// Number format of the networks [default: bf16 where the CPU has instructions for it, else f32]
    #[arg(long, value_enum)]
    dtype: Option<DtypeName>,
    /// Threads to compute with; the set is the same for any number [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Also write what is said of the set into a file, as JSON: its pictures and warnings
    #[arg(long, value_name = "FILE", hide = true)]
    report: Option<PathBuf>,
    /// End when stdin is closed: whoever has started the command is gone
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

/// The command's options, and a flag for every field that concerns the set.
pub fn options(command: Command) -> Command {
    let about = "Make a training set of pictures: masks, squares and captions, to look through and correct";
    let details = "The model says the resolution, and which networks are used unless others are named. `calotype train -i \
                   input_images=@SET` takes the set as it is. In SET: NAME.png, NAME.txt and NAME.mask.png for each picture, \
                   dataset.txt, contact_sheet.png, and preprocess.json, which knows what each was made from.";
    let command = PreprocessArgs::augment_args(command).about(about).after_help(details);
    fields::options(command, &TrainInput::preprocess_schema())
}

/// Makes the set, and prints its path.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = PreprocessArgs::from_arg_matches(matches).map_err(|e| args::in_one_line(&e))?;
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    if settings.end_with_stdin {
        interrupt::end_with_stdin();
    }
    let schema = TrainInput::preprocess_schema();
    let mut given = fields::given(&schema, matches)?;
    if let Some(photos) = &settings.photos {
        let photos = fields::path(schema.field(INPUT)?, photos)?;
        if given.insert(INPUT.into(), photos).is_some() {
            return Err(Failure::BadInput(format!("{INPUT}: given twice, as PHOTOS too")));
        }
    }
    if !given.contains_key(INPUT) {
        let problem = "expected a folder, a .zip, a .tar or a .tar.gz with the pictures, found none";
        return Err(Failure::BadInput(format!("PHOTOS: {problem}")));
    }
    let request = TrainInput::from_json(given.clone())?;
    let set = &settings.output;
    check_output(set, Path::new(&request.input_images))?;
    let plan = plans::train(request.clone(), TrainOptions::default())?;
    for name in plans::masks_without_effect(&given, &plans::masks(&request)?) {
        tracing::warn!("{name}: changes nothing with these masks");
    }
    let networks = settings.networks.absolute()?;
    interrupt::install().map_err(Failure::signals)?;
    let folder = ModelFolder::open_paths(&settings.model.configs(quiet)?).map_err(Error::from)?;
    let configs = folder.configs().map_err(Error::from)?;
    check_model(&configs)?;
    let plan = plans::train_at_native_size(plan, &given, configs.native_size());
    let plan = with_seed(plan, &given, set)?;
    let dtype = DtypeName::or_native(settings.dtype);
    let (folder, configs, request, plan) = (&folder, &configs, &request, &plan);
    let source = Source { folder, configs, request, plan, networks: &networks, dtype, quiet };
    let dataset = make(&source, set, settings.model.model.is_none().then_some(pocket::NOTICE))?;
    if let Some(path) = &settings.report {
        let report = json!({ "pictures": dataset.pictures(), "warnings": dataset.warnings });
        output::write_bytes(path, report.to_string().as_bytes())?;
    }
    output::print_path(set)
}

/// Makes the set in the folder `set`.
fn make(source: &Source, set: &Path, notice: Option<&str>) -> Result<Dataset, Failure> {
    let print_line = |line: &str| {
        if !source.quiet {
            output::note(line)
        }
    };
    let writer = Writer::open(set, source.plan.seed).map_err(Error::from)?;
    let (dataset, writer) = source.list(Some(set))?.prepare(|| Ok(Some(writer)))?;
    notice.inspect(|notice| print_line(notice));
    print_line(dataset.report().trim_end());
    set::finish(writer, &dataset, set)?;
    print_line(&format!("seed {}; look at {}", source.plan.seed, set.join("contact_sheet.png").display()));
    Ok(dataset)
}

/// Refuses a folder that is, or that holds, the pictures themselves.
fn check_output(set: &Path, photos: &Path) -> Result<(), Failure> {
    let bad = |problem: &str| Err(Failure::BadInput(format!("-o {}: {problem}", set.display())));
    let real = |path: &Path| path.canonicalize().ok();
    if set.to_str().is_none() {
        return bad("expected a name in Unicode");
    }
    if let (Some(set), Some(photos)) = (real(set), real(photos))
        && photos.starts_with(&set)
    {
        return bad("expected another folder than that of the pictures");
    }
    output::check_folder("-o", set)
}

/// The plan with the seed of the earlier set, if none is given, so that its captions stay.
fn with_seed(mut plan: TrainPlan, given: &Map<String, Value>, set: &Path) -> Result<TrainPlan, Failure> {
    if given.get("seed").is_none_or(Value::is_null)
        && let Some(seed) = Writer::seed(set).map_err(Error::from)?
    {
        plan.seed = seed;
    }
    Ok(plan)
}
