//! `calotype demo`: teaches the pocket model something that it has never seen, and shows pictures before and after.
//!
//! ```text
//! mascot.rs, mascot.json   the pictures to learn from
//! made.rs                  what preprocessing made of them
//! sheet.rs                 everything on one page
//! ```

mod made;
mod mascot;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use calotype_request::schema;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};
use calotype_tensor::DType;
use calotype_train::chart::Losses;
use calotype_train::page::Page;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use self::made::Made;
use self::mascot::{SCENES, Scene};
use self::sheet::{Row, Sheet};
use crate::args::{self, Verbosity};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::shell::typed;
use crate::{interrupt, output, picture, pocket};

/// The prompts before and after the training. None of these places is in the set.
const PROMPTS: [&str; 6] = [
    "a photo of TOK on a beach",
    "TOK in the snow at night",
    "TOK in a forest",
    "TOK on the moon",
    "TOK under water",
    "TOK in a city at sunset",
];
/// The seed of the first picture. Each further picture has the next seed.
const SEED: u64 = 1;
const INFERENCE_STEPS: usize = 25;
/// Less than usual: six pictures make a strong LoRA, and the places of the prompts must not vanish.
const GUIDANCE: f64 = 3.0;
/// A little more than was trained brings the shape out, and the places stay.
const LORA_SCALE: f64 = 1.1;
/// The steps of the training.
const STEPS: u32 = 250;
/// The other settings of the training, as on a command line. LoRA of all layers learns the shape, which attentions, on the 8 × 8 cells
/// that they have in so small a model, do not. With f32, which is as fast for so small a model, the sheet does not depend on the CPU.
const TRAINING: [(&str, &str); 15] = [
    // The subject, in words that the segmenter knows. Soft masks leave a part of the loss to what is around the subject: without
    // that the places change too.
    ("mask-target-prompts", "a toy"),
    ("clipseg-temperature", "3"),
    ("caption-decoding", "greedy"),
    ("model", pocket::NAME),
    ("dtype", "f32"),
    ("seed", "1"),
    ("train-batch-size", "2"),
    ("lora-layers", "all"),
    ("lora-rank", "16"),
    ("lora-lr", "5e-3"),
    ("lr-scheduler", "linear"),
    // Steps with little noise count less: they would learn the plain places of the set.
    ("min-snr-gamma", "5"),
    ("ti-lr", "3e-3"),
    ("lr-warmup-steps", "10"),
    ("validate-every", "50"),
];

/// The headings of the sheet's longer rows.
const LEARNT: &str = "What it learns from: squares around the subject, enlarged where they were too small, dark where it does not matter, with \
                      captions of its own";
const AFTER: &str = "After: the same prompts and seeds; none of these places was in the pictures";

#[derive(Debug, Args)]
struct DemoArgs {
    /// Folder for the pictures, the training and the sheet [default: calotype-demo, with -2, -3 … where it is there]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Threads to compute with; the sheet is the same for any number [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Training steps, to try less
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
}

pub fn options(command: Command) -> Command {
    DemoArgs::augment_args(command)
        .about("Teach the built-in model something new, and show it before and after")
}

/// Draws the set, makes pictures, trains, makes the pictures again, and prints the paths of the trained weights and the sheet.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = DemoArgs::from_arg_matches(matches).map_err(|e| args::in_one_line(&e))?;
    let start = Instant::now();
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    interrupt::install().map_err(Failure::signals)?;
    let model = pocket::folder()?;
    let dir = match &settings.output {
        Some(dir) => given_folder(dir)?,
        None => output::new_folder(Path::new(""), "calotype-demo")?,
    };
    let print_line = |line: &str| {
        if !quiet {
            output::note(line)
        }
    };
    let demo = Demo { model, dir, steps: settings.steps.unwrap_or(STEPS), quiet };

    print_line("TOK is a small camera that walks. The model has never seen it.");
    print_line(&format!("1. its pictures: {}", demo.set().display()));
    demo.draw_set()?;
    print_line("2. the prompts before training");
    let before = demo.predict(&[])?;
    let training = demo.training();
    print_line(&format!("3. training: {}", typed(&training)));
    demo.train(&training)?;
    print_line("4. the same prompts after training");
    let trained = demo.run().join("trained_model.tar");
    let after = demo.predict(std::slice::from_ref(&trained))?;
    let losses = super::train::losses(&demo.run(), demo.steps as usize)?;
    let sheet = demo.sheet(&before, &after, losses)?.png();
    let path = demo.dir.join("demo.png");
    output::write_bytes(&path, &sheet)?;
    print_line(&format!("done in {} s; open the sheet, and ask for more:", start.elapsed().as_secs()));
    let trained = schema::join(&[trained]);
    let (guidance, scale) = (GUIDANCE.to_string(), LORA_SCALE.to_string());
    let model = ["predict", "--model", pocket::NAME, "--prompt", "TOK in the mountains"];
    let settings = ["--guidance-scale", &guidance, "--lora-scale", &scale, "--replicate-weights", &trained];
    print_line(&typed(&[&model[..], &settings[..]].concat()));
    output::print(&format!("{}\n", path.display()))
}

/// Checks the folder that the user gave. The folder need not exist.
fn given_folder(dir: &Path) -> Result<PathBuf, Failure> {
    let bad = |problem: &str| Err(Failure::BadInput(format!("-o {}: {problem}", dir.display())));
    if dir.to_str().is_none() {
        return bad("expected a name in Unicode");
    }
    if let Some(name) = ["set", "run", "demo.png"].iter().find(|name| dir.join(name).exists()) {
        return bad(&format!("{name} is there already: take another folder"));
    }
    output::check_folder("-o", dir)?;
    Ok(dir.into())
}

struct Demo {
    model: PathBuf,
    dir: PathBuf,
    steps: u32,
    quiet: bool,
}

impl Demo {
    fn set(&self) -> PathBuf {
        self.dir.join("set")
    }

    fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Writes `set/`: the pictures, without captions and masks.
    fn draw_set(&self) -> Result<(), Failure> {
        let set = self.set();
        fs::create_dir_all(&set).map_err(|e| Failure::io(&set, &e))?;
        for scene in &SCENES {
            let (rgb, path) = (scene.draw(), set.join(format!("{}.png", scene.background)));
            output::write_file(&path, |file| picture::write_png(file, scene.dimensions(), &rgb, &[]))?;
        }
        Ok(())
    }

    fn sheet(&self, before: &[Image], after: &[Image], losses: Losses) -> Result<Page, Failure> {
        let count = SCENES.len();
        let what = format!(
            "A new word, TOK, and a LoRA of all layers: learnt from {count} pictures in {} steps",
            self.steps
        );
        let drawn: Vec<Vec<u8>> = SCENES.iter().map(Scene::draw).collect();
        let set = SCENES.iter().zip(&drawn);
        let set = set.map(|(scene, rgb)| (rgb.as_slice(), scene.dimensions(), scene.what())).collect();
        let made = SCENES.iter().map(|scene| Made::read(&self.run(), scene.background));
        let made: Vec<Made> = made.collect::<Result<_, _>>()?;
        let learnt = made.iter().map(|made| (made.rgb.as_slice(), made.size, made.caption.as_str()));
        let rows = vec![
            Row { heading: "The pictures that it is given", pictures: set },
            Row { heading: LEARNT, pictures: learnt.collect() },
            Row::made("Before: the model has never seen TOK", before, &PROMPTS),
            Row::made(AFTER, after, &PROMPTS),
        ];
        Ok(Sheet { what, rows, losses }.page())
    }

    /// Makes a picture for each prompt.
    fn predict(&self, trained: &[PathBuf]) -> Result<Vec<Image>, Failure> {
        let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
        let pipeline = Pipeline::open(&self.model, options)?;
        let mut progress = Progress::start(format!("{} pictures", PROMPTS.len()), self.quiet);
        let mut pictures = Vec::new();
        let made = PROMPTS.iter().enumerate().try_for_each(|(i, prompt)| {
            let plan = plan(&pipeline, prompt, SEED + i as u64, trained);
            pictures.extend(pipeline.predict(&plan, &mut |step| {
                if step.step > 0 {
                    progress.step(i * step.steps + step.step, PROMPTS.len() * step.steps);
                }
                interrupt::flow()
            })?);
            Ok::<(), Failure>(())
        });
        progress.finish();
        made.map(|()| pictures)
    }

    /// The command line of the training.
    fn training(&self) -> Vec<String> {
        let set = format!("input_images=@{}", self.set().display());
        let (steps, run) = (self.steps.to_string(), self.run().display().to_string());
        let settings = TRAINING.into_iter().chain([("max-train-steps", &*steps), ("run-dir", &run)]);
        let settings = settings.flat_map(|(name, value)| [format!("--{name}"), value.to_owned()]);
        ["train".into(), "-i".into(), set].into_iter().chain(settings).collect()
    }

    fn train(&self, line: &[String]) -> Result<(), Failure> {
        let line = std::iter::once("calotype").chain(line.iter().map(String::as_str));
        let line = line.chain(self.quiet.then_some("-q"));
        let matches = super::program().try_get_matches_from(line).map_err(|e| args::in_one_line(&e))?;
        match matches.subcommand() {
            Some((name, matches)) => super::run(name, matches),
            None => Ok(()),
        }
    }
}

/// The plan of a picture in the model's native size.
fn plan(pipeline: &Pipeline, prompt: &str, seed: u64, trained: &[PathBuf]) -> PredictPlan {
    let default = PredictPlan::default();
    let side = pipeline.native_size().unwrap_or(default.width);
    PredictPlan {
        prompt: prompt.into(),
        width: side,
        height: side,
        steps: INFERENCE_STEPS,
        guidance_scale: GUIDANCE,
        lora_scale: LORA_SCALE,
        replicate_weights: trained.to_vec(),
        seed,
        ..default
    }
}
