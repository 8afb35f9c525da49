//! `calotype export`: writes trained weights in the layouts of other programs, or a model with the weights merged in.

use std::path::{Path, PathBuf};

use calotype_models::tokenizer::CLIP_VOCABULARY;
use calotype_models::{ModelFolder, ModelPaths};
use calotype_sdxl::adapters::{AdapterError, Modules, SafetensorsFile, TrainedWeights, files_read};
use calotype_sdxl::merged::Merged;
use calotype_tensor::DType;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use super::train::run_dir;
use crate::args::Verbosity;
use crate::failure::Failure;
use crate::model::ModelArgs;
use crate::output;

#[derive(Debug, Args)]
struct ExportArgs {
    /// What was trained: a trained_model.tar, a folder with its files, a run or one of its checkpoints, or a LoRA file in
    /// any layout. For a whole model: none or several, which are all merged into --model
    #[arg(value_name = "TRAINED")]
    trained: Vec<PathBuf>,
    /// The layout to write
    #[arg(long, value_enum)]
    format: Format,
    /// The file to write; an earlier one of this name is replaced. With --format model-folder: a new folder
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// For a whole model: what LoRA is multiplied by [default: 1]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    scale: Option<f64>,
    /// For a whole model: the number format to write [default: f16]
    #[arg(long, value_enum)]
    dtype: Option<WrittenDtype>,
}

/// The number formats of written models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WrittenDtype {
    /// 16-bit floats, as most models are passed around
    F16,
    /// bfloat16
    Bf16,
    /// 32-bit floats
    F32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One file with the embeddings in it, as kohya's trainer writes and the web UIs read
    Kohya,
    /// As diffusers' save_lora_weights writes; the embeddings beside it, in FILE_emb.safetensors, or alone in FILE
    Diffusers,
    /// The whole model with what was trained merged in: a folder in diffusers' layout
    ModelFolder,
    /// The same as one file in the original layout, as the web UIs and diffusers' from_single_file read
    SingleFile,
}

/// The command's options.
pub fn options(command: Command) -> Command {
    ExportArgs::augment_args(command)
        .about("Write trained weights, or a model with them merged in, for other programs")
}

/// Reads, converts and writes the weights, and prints the paths.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = ExportArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    if matches!(settings.format, Format::ModelFolder | Format::SingleFile) {
        return whole_model(&settings, quiet);
    }
    let trained = settings.one_trained()?;
    settings.check_output(&[])?; // before a model is fetched
    // A model from the environment is not one that these weights are said to be for.
    let is_given = matches.value_source("model") == Some(ValueSource::CommandLine);
    let model = is_given.then(|| settings.model.paths(quiet)).transpose()?;
    let path = model.as_ref().map(|paths| ("--model", paths.model.as_path()));
    settings.check_output(path.as_slice())?;
    let modules = model.as_ref().map(modules).transpose()?;
    let found = TrainedWeights::read(trained, modules.as_ref()).map_err(refused)?;
    let in_layout =
        |e: AdapterError| refused(AdapterError::File { path: trained.to_path_buf(), problem: e.to_string() });
    match settings.format {
        Format::Kohya => {
            write(&settings.output, &found.to_kohya().map_err(in_layout)?)?;
            if found.new_tokens() > 0 {
                let output = settings.output.display();
                tracing::warn!("{output}: {FOR_WEB_UIS}");
            }
            Ok(())
        }
        _ if found.is_embeddings_only() => {
            found.embeddings_file().map_or(Ok(()), |file| write(&settings.output, &file))
        }
        _ => {
            write(&settings.output, &found.to_diffusers().map_err(in_layout)?)?;
            found.embeddings_file().map_or(Ok(()), |file| write(&embeddings_path(&settings.output, 1), &file))
        }
    }
}

/// Writes the model, with the trained weights merged in. A model has no place for the embeddings of new tokens: they are written to
/// files of their own.
fn whole_model(settings: &ExportArgs, quiet: bool) -> Result<(), Failure> {
    let bad = |what: String| Failure::BadInput(what);
    let scale = settings.scale.unwrap_or(1.0);
    if !scale.is_finite() {
        return Err(bad(format!("--scale: expected a number, found {scale}")));
    }
    if settings.model.model.is_none() {
        return Err(bad(
            "--model: expected the checkpoint that the weights are merged into, found none".into()
        ));
    }
    let is_folder = settings.format == Format::ModelFolder;
    if is_folder && settings.output.symlink_metadata().is_ok() {
        let path = settings.output.display();
        return Err(bad(format!("-o {path}: expected a folder to be made, found one that is there already")));
    }
    let paths = settings.model.paths(quiet)?;
    let others = [("--config", &paths.config), ("--vae", &paths.vae)];
    let others = others.iter().filter_map(|(name, path)| Some((*name, path.as_deref()?)));
    let inputs: Vec<(&str, &Path)> = others.chain([("--model", paths.model.as_path())]).collect();
    match is_folder {
        true => output::check_folder("-o", &settings.output)?,
        false => settings.check_output(&inputs)?,
    }
    let embeddings = settings.embeddings(&paths)?;
    let dtype = match settings.dtype.unwrap_or(WrittenDtype::F16) {
        WrittenDtype::F16 => DType::F16,
        WrittenDtype::Bf16 => DType::BF16,
        WrittenDtype::F32 => DType::F32,
    };
    let folder = ModelFolder::open_paths(&paths).map_err(calotype_sdxl::Error::from)?;
    if !is_folder {
        warn_about_tokenizer(&folder)?;
    }
    let merged = Merged::open(folder, &settings.trained, scale, dtype)?;
    match is_folder {
        true => write_folder(&settings.output, &merged)?,
        false => {
            let file = merged.single_file()?;
            output::write_output(&settings.output, |to| file.write(to))?;
            output::print_path(&settings.output)?;
        }
    }
    for (i, file) in embeddings.iter().enumerate() {
        let path = embeddings_path(&settings.output, i + 1);
        tracing::warn!("{}: the new tokens' embeddings, which are no part of a model", path.display());
        write(&path, file)?;
    }
    Ok(())
}

/// Warns that a single file has no tokenizer, if the model's is not CLIP's, which every program that reads such files has.
fn warn_about_tokenizer(folder: &ModelFolder) -> Result<(), Failure> {
    let configs = folder.configs().map_err(calotype_sdxl::Error::from)?;
    if configs.text_encoder_2.vocab_size < CLIP_VOCABULARY {
        tracing::warn!(
            "the model's tokenizer is not CLIP's, and has no place in a single file: give the file together with --config {}",
            folder.path().display()
        );
    }
    Ok(())
}

/// Writes a model's folder under another name, and renames the whole folder.
fn write_folder(path: &Path, merged: &Merged) -> Result<(), Failure> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| Failure::io(parent, &e))?;
    let part = tempfile::Builder::new().prefix(".calotype-").tempdir_in(parent);
    let part = part.map_err(|e| Failure::io(parent, &e))?;
    let folder = part.path().join("model");
    let place = |name: &str| -> Result<PathBuf, Failure> {
        let file = folder.join(name);
        let above = file.parent().unwrap_or(&folder);
        std::fs::create_dir_all(above).map_err(|e| Failure::io(above, &e))?;
        Ok(file)
    };
    for (name, bytes) in merged.small_files()? {
        output::write_bytes(&place(&name)?, &bytes)?;
    }
    for (component, name) in merged.networks() {
        let file = merged.network(component)?;
        output::write_file(&place(&name)?, |to| file.write(to))?;
    }
    std::fs::rename(&folder, path).map_err(|e| Failure::io(path, &e))?;
    output::print_path(path)
}

impl ExportArgs {
    /// What was trained, for the layouts that hold one.
    fn one_trained(&self) -> Result<&Path, Failure> {
        for (name, given) in [("--scale", self.scale.is_some()), ("--dtype", self.dtype.is_some())] {
            if given {
                let problem = "expected with --format model-folder or single-file alone";
                return Err(Failure::BadInput(format!("{name}: {problem}")));
            }
        }
        match self.trained.as_slice() {
            [one] => Ok(one),
            other => Err(Failure::BadInput(format!(
                "TRAINED: expected one with this --format, found {}",
                other.len()
            ))),
        }
    }

    /// The embeddings of new tokens, a file for each of the trained weights that have some.
    fn embeddings(&self, paths: &ModelPaths) -> Result<Vec<SafetensorsFile>, Failure> {
        if self.trained.is_empty() {
            return Ok(Vec::new());
        }
        let modules = modules(paths)?;
        let files =
            self.trained.iter().map(|path| TrainedWeights::read(path, Some(&modules)).map_err(refused));
        let files: Vec<TrainedWeights> = files.collect::<Result<_, _>>()?;
        Ok(files.iter().filter_map(TrainedWeights::embeddings_file).collect())
    }

    /// Checks that the output can be written and is not an input. An earlier export may be in the folder of a run, next to the
    /// run's own files.
    fn check_output(&self, more: &[(&str, &Path)]) -> Result<(), Failure> {
        let own = run_dir::FILES.iter().chain([&run_dir::CHECKPOINTS, &run_dir::SAMPLES]);
        let of = |trained: &PathBuf| -> Vec<PathBuf> {
            files_read(trained).into_iter().chain(own.clone().map(|name| trained.join(name))).collect()
        };
        let read: Vec<PathBuf> = self.trained.iter().flat_map(of).collect();
        let read = read.iter().map(|file| ("TRAINED", file.as_path()));
        let inputs: Vec<_> = read.chain(more.iter().copied()).collect();
        output::check_file(&self.output, &inputs)?;
        match self.format {
            Format::Diffusers => output::check_file(&embeddings_path(&self.output, 1), &inputs),
            _ => Ok(()),
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
fn modules(paths: &ModelPaths) -> Result<Modules, Failure> {
    let read = || -> Result<Modules, calotype_sdxl::Error> {
        let folder = ModelFolder::open_paths(paths)?;
        Ok(Modules::of(&folder, &folder.configs()?)?)
    };
    Ok(read()?)
}

/// `lora.safetensors` → `lora_emb.safetensors`, and for a second file `lora_emb_2.safetensors`.
fn embeddings_path(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(match number {
        1 => "_emb.safetensors".to_owned(),
        n => format!("_emb_{n}.safetensors"),
    });
    path.with_file_name(name)
}

fn write(path: &Path, file: &SafetensorsFile) -> Result<(), Failure> {
    output::write_output(path, |to| file.write(to))?;
    output::print_path(path)
}
