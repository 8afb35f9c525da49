//! Captions, masks or faces of pictures, one line of JSON each, for `tools/reference/words_check.py`, `tools/reference/bench/words.py` and
//! `tools/reference/bench/faces.py`:
//!
//! ```text
//! words caption FOLDER f32|bf16 sample|greedy|beam SEED PICTURE..
//! words mask FOLDER f32|bf16 PROMPT TEMPERATURE PICTURE..      writes PICTURE.mask.png
//! words faces PICTURE..
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use calotype_tensor::DType;
use calotype_train::preprocess::faces::FaceFinder;
use calotype_train::preprocess::{CaptionDecoding, Captioner, Segmenter};
use image::RgbImage;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    match args {
        ["caption", folder, dtype, how, seed, pictures @ ..] => {
            let captioner = Captioner::open(Path::new(folder), self::dtype(dtype)?)?;
            let how = match *how {
                "sample" => CaptionDecoding::Sample,
                "greedy" => CaptionDecoding::Greedy,
                "beam" => CaptionDecoding::Beam,
                other => return Err(format!("expected sample, greedy or beam, found {other}").into()),
            };
            for picture in pictures {
                let image = open(picture)?;
                let begun = Instant::now();
                let tokens = captioner.tokens(&image, how, seed.parse()?)?;
                let seconds = begun.elapsed().as_secs_f64();
                let text = captioner.text(&tokens);
                line(
                    serde_json::json!({ "picture": picture, "tokens": tokens, "text": text, "seconds": seconds }),
                );
            }
        }
        ["mask", folder, dtype, prompt, temperature, pictures @ ..] => {
            let segmenter = Segmenter::open(Path::new(folder), self::dtype(dtype)?)?;
            let prompt = segmenter.prompt(prompt)?;
            for picture in pictures {
                let image = open(picture)?;
                let begun = Instant::now();
                let found = segmenter.segment(&image, &prompt, temperature.parse()?)?;
                let seconds = begun.elapsed().as_secs_f64();
                found.mask.save(format!("{picture}.mask.png"))?;
                line(serde_json::json!({ "picture": picture, "largest": found.largest, "seconds": seconds }));
            }
        }
        ["faces", pictures @ ..] => {
            let finder = FaceFinder::carried();
            for picture in pictures {
                let image = open(picture)?;
                let begun = Instant::now();
                let faces = finder.find(&image).len();
                let seconds = begun.elapsed().as_secs_f64();
                line(serde_json::json!({ "picture": picture, "faces": faces, "seconds": seconds }));
            }
        }
        _ => return Err("expected caption, mask or faces, as the documentation says".into()),
    }
    Ok(())
}

fn dtype(name: &str) -> Result<DType, String> {
    match name {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        other => Err(format!("expected f32 or bf16, found {other}")),
    }
}

fn open(picture: &str) -> Result<RgbImage, image::ImageError> {
    Ok(image::open(picture)?.to_rgb8())
}

#[allow(clippy::print_stdout)]
fn line(json: serde_json::Value) {
    println!("{json}");
}
