//! `calotype watermark`: whether pictures have the invisible watermark.

use std::fs;
use std::path::{Path, PathBuf};

use calotype_sdxl::picture::{self, CAMERA_PIXELS};
use calotype_sdxl::watermark::{BITS, MIN_SIDE, Verdict, detect};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
struct WatermarkArgs {
    /// Pictures: PNG, JPEG, WebP, BMP, GIF or TIFF
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// The command's options.
pub fn options(command: Command) -> Command {
    let about = "Say whether pictures have the invisible watermark";
    let details = "Prints for each picture how many of the watermark's 48 bits are right: up to 27 are chance, 28 to 33 are \
                   uncertain, from 34 the watermark is likely, from 36 very likely. Exit code 0: it is likely or very likely in \
                   each picture. 1: in some it is not. 2: a file cannot be read. Lossy compression, scaling and cropping \
                   remove the watermark, so that its absence proves nothing.";
    WatermarkArgs::augment_args(command).about(about).after_help(details)
}

/// Prints a line for each picture.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = WatermarkArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let mut without = 0;
    for file in &settings.files {
        let found = bits(file)?;
        without += usize::from(found.is_none_or(|right| Verdict::of(right) < Verdict::Likely));
        output::print(&format!("{}: {}\n", file.display(), words(found)))?;
    }
    match (without, settings.files.len()) {
        (0, _) => Ok(()),
        (1, 1) => Err(Failure::Failed("no watermark found".into())),
        (without, all) => Err(Failure::Failed(format!("no watermark found in {without} of {all} pictures"))),
    }
}

/// The number of right bits in a picture. `None`: the picture is too small.
fn bits(file: &Path) -> Result<Option<usize>, Failure> {
    let bad = |what: String| Failure::BadInput(format!("{}: {what}", file.display()));
    let is_file = fs::metadata(file).map_err(|e| bad(e.to_string()))?.is_file(); // a pipe would be waited for
    if !is_file {
        return Err(bad("expected a picture, found no file".into()));
    }
    let bytes = fs::read(file).map_err(|e| bad(e.to_string()))?;
    let (rgb, _) = picture::decode(&bytes, CAMERA_PIXELS).map_err(|e| bad(e.to_string()))?;
    Ok(detect(rgb.as_raw(), rgb.width() as usize, rgb.height() as usize))
}

fn words(found: Option<usize>) -> String {
    let Some(right) = found else {
        return format!("no watermark (below {MIN_SIDE} × {MIN_SIDE} pixels, too small for one)");
    };
    let verdict = match Verdict::of(right) {
        Verdict::None => "no watermark",
        Verdict::Uncertain => "uncertain",
        Verdict::Likely => "watermark likely",
        Verdict::VeryLikely => "watermark very likely",
    };
    format!("{verdict} ({right} of {BITS} bits)")
}
