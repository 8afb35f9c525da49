//! `calotype export`: writes trained weights in the layouts of other programs.

use std::path::{Path, PathBuf};

use calotype_models::ModelFolder;
use calotype_sdxl::adapters::{AdapterError, Modules, SafetensorsFile, TrainedWeights, files_read};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use super::train::run_dir;
use crate::args::Verbosity;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
struct ExportArgs {
    /// What was trained: a trained_model.tar, a folder with its files, a run or one of its checkpoints, or a LoRA file in
    /// any layout
    #[arg(value_name = "TRAINED")]
    trained: PathBuf,
    /// The layout to write
    #[arg(long, value_enum)]
    format: Format,
    /// The file to write; an earlier one of this name is replaced
    #[arg(short, long, value_name = "FILE.safetensors")]
    output: PathBuf,
    /// The checkpoint that it was trained on, a folder or its name on a hub: to check shapes, and needed for LoRA with
    /// kohya's names
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One file with the embeddings in it, as kohya's trainer writes and the web UIs read
    Kohya,
    /// As diffusers' save_lora_weights writes; the embeddings beside it, in FILE_emb.safetensors, or alone in FILE
    Diffusers,
}

/// The command's options.
pub fn options(command: Command) -> Command {
    ExportArgs::augment_args(command).about("Write trained weights for other programs")
}

/// Reads, converts and writes the weights, and prints the paths.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = ExportArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    settings.check_output(&[])?; // before a model is fetched
    let model = settings.model.as_deref().map(|model| super::model_folder(Some(model), quiet)).transpose()?;
    settings.check_output(model.as_deref().map(|model| ("--model", model)).as_slice())?;
    let modules = model.as_deref().map(modules).transpose()?;
    let trained = TrainedWeights::read(&settings.trained, modules.as_ref()).map_err(refused)?;
    let in_layout = |e: AdapterError| {
        refused(AdapterError::File { path: settings.trained.clone(), problem: e.to_string() })
    };
    match settings.format {
        Format::Kohya => {
            write(&settings.output, &trained.to_kohya().map_err(in_layout)?)?;
            if trained.new_tokens() > 0 {
                let output = settings.output.display();
                tracing::warn!("{output}: {FOR_WEB_UIS}");
            }
            Ok(())
        }
        Format::Diffusers if trained.is_embeddings_only() => {
            trained.embeddings_file().map_or(Ok(()), |file| write(&settings.output, &file))
        }
        Format::Diffusers => {
            write(&settings.output, &trained.to_diffusers().map_err(in_layout)?)?;
            trained.embeddings_file().map_or(Ok(()), |file| write(&embeddings_path(&settings.output), &file))
        }
    }
}

impl ExportArgs {
    /// Checks that the output can be written and is not an input. An earlier export may be in the folder of a run, next to the
    /// run's own files.
    fn check_output(&self, more: &[(&str, &Path)]) -> Result<(), Failure> {
        let own = run_dir::FILES.iter().chain([&run_dir::CHECKPOINTS, &run_dir::SAMPLES]);
        let read: Vec<PathBuf> =
            files_read(&self.trained).into_iter().chain(own.map(|name| self.trained.join(name))).collect();
        let read = read.iter().map(|file| ("TRAINED", file.as_path()));
        let inputs: Vec<_> = read.chain(more.iter().copied()).collect();
        output::check_file(&self.output, &inputs)?;
        match self.format {
            Format::Kohya => Ok(()),
            Format::Diffusers => output::check_file(&embeddings_path(&self.output), &inputs),
        }
    }
}

/// diffusers' `load_lora_weights` refuses a file with a key that does not contain `lora`.
const FOR_WEB_UIS: &str = "the new tokens' embeddings are in it (bundle_emb), as the web UIs read them; \
                           diffusers reads no such file: --format diffusers writes one for it";

fn refused(e: AdapterError) -> Failure {
    calotype_sdxl::Error::from(e).into()
}

/// The layers of a model.
fn modules(folder: &Path) -> Result<Modules, Failure> {
    let read = || -> Result<Modules, calotype_sdxl::Error> {
        let folder = ModelFolder::open(folder)?;
        Ok(Modules::of(&folder, &folder.configs()?)?)
    };
    Ok(read()?)
}

/// `lora.safetensors` → `lora_emb.safetensors`.
fn embeddings_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("_emb.safetensors");
    path.with_file_name(name)
}

fn write(path: &Path, file: &SafetensorsFile) -> Result<(), Failure> {
    output::write_output(path, |to| file.write(to))?;
    output::print_path(path)
}
