//! What transformers' image processor makes of a picture before a network sees it.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;

use crate::json::{ConfigError, Json};

/// How a picture becomes a network's input: resized to a square whatever its shape, then for each channel
/// (value · `rescale_factor` − `image_mean`) / `image_std`.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessorConfig {
    /// The side of the square, in pixels.
    pub side: usize,
    /// How the picture is resized.
    pub resample: Resample,
    /// What the 8-bit values are multiplied with.
    pub rescale_factor: f64,
    /// Of each channel; 0 where the folder asks for no normalisation.
    pub image_mean: [f32; 3],
    /// Of each channel, not 0; 1 where the folder asks for no normalisation.
    pub image_std: [f32; 3],
}

/// Pillow's filters that networks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// `LANCZOS`, 1.
    Lanczos,
    /// `BILINEAR`, 2.
    Bilinear,
    /// `BICUBIC`, 3.
    Bicubic,
}

impl ImageProcessorConfig {
    /// BLIP's processor, with the mean and standard deviation of the pictures that CLIP learned from.
    pub fn blip(side: usize) -> Self {
        Self {
            side,
            resample: Resample::Bicubic,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }

    /// CLIPSeg's processor, with the mean and standard deviation of ImageNet's pictures.
    pub fn clipseg() -> Self {
        Self {
            side: 352,
            resample: Resample::Bilinear,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.485, 0.456, 0.406],
            image_std: [0.229, 0.224, 0.225],
        }
    }

    /// Reads the fields of `image_processor` in a folder's `processor_config.json`, else those of `preprocessor_config.json`. Absent fields,
    /// or all if there is no such file, are those of `default`. `sides`: what the network takes.
    ///
    /// # Errors
    /// A field is invalid, or asks for steps that no processor of these networks has.
    pub fn read(folder: &Path, default: Self, sides: RangeInclusive<usize>) -> Result<Self, ConfigError> {
        let [of_all, own] =
            ["processor_config.json", "preprocessor_config.json"].map(|name| folder.join(name));
        let nested = if of_all.is_file() { Json::read(&of_all)?.nested("image_processor") } else { None };
        let json = match nested {
            Some(json) => json,
            None if own.is_file() => Json::read(&own)?,
            None => Json::of(&folder.join("config.json"), Value::Object(serde_json::Map::new())),
        };
        json.fixed(&[("do_resize", "true"), ("do_center_crop", "false")])?;
        let does = |step: &str| json.value.get(step).is_none_or(|does| does.as_bool() != Some(false));
        let normalise = does("do_normalize");
        let channels = |field: &str, default, without: f32| match normalise {
            true => channels(&json, field, default),
            false => Ok([without; 3]),
        };
        let image_std = channels("image_std", default.image_std, 1.0)?;
        if image_std.contains(&0.0) {
            return Err(json.fail("image_std", "numbers other than 0", format!("{image_std:?}")));
        }
        Ok(Self {
            side: side(&json, default.side, sides)?,
            resample: resample(&json, default.resample)?,
            rescale_factor: match json.value.get("rescale_factor") {
                _ if !does("do_rescale") => 1.0,
                None => default.rescale_factor,
                Some(_) => {
                    json.positive("rescale_factor", json.at("rescale_factor")?)?;
                    json.at("rescale_factor")?
                }
            },
            image_mean: channels("image_mean", default.image_mean, 0.0)?,
            image_std,
        })
    }
}

/// `size`: a number, or height and width, which must be equal.
fn side(json: &Json, default: usize, sides: RangeInclusive<usize>) -> Result<usize, ConfigError> {
    let size = &json.value["size"];
    let (height, width) = match size {
        Value::Null => (default, default),
        Value::Number(_) => (json.at("size")?, json.at("size")?),
        size => match (size["height"].as_u64(), size["width"].as_u64()) {
            (Some(height), Some(width)) => (height as usize, width as usize),
            _ => return Err(json.fail("size", "height and width", size)),
        },
    };
    if height != width || !sides.contains(&height) {
        let expected = match (sides.start(), sides.end()) {
            (least, most) if least == most => format!("{least} × {least}, as the network's image_size"),
            (least, most) => format!("a square of {least} to {most} pixels"),
        };
        return Err(json.fail("size", expected, format!("{height} × {width}")));
    }
    Ok(height)
}

fn resample(json: &Json, default: Resample) -> Result<Resample, ConfigError> {
    match &json.value["resample"] {
        Value::Null => Ok(default),
        found => match found.as_u64() {
            Some(1) => Ok(Resample::Lanczos),
            Some(2) => Ok(Resample::Bilinear),
            Some(3) => Ok(Resample::Bicubic),
            _ => Err(json.fail("resample", "1 (Lanczos), 2 (bilinear) or 3 (bicubic)", found)),
        },
    }
}

/// A number for all channels, or one for each.
fn channels(json: &Json, field: &str, default: [f32; 3]) -> Result<[f32; 3], ConfigError> {
    let numbers = match &json.value[field] {
        Value::Null => return Ok(default),
        Value::Number(_) => [json.at::<f64>(field)?; 3],
        _ => json.at(field)?,
    };
    let numbers = numbers.map(|number| number as f32);
    match numbers.iter().all(|number| number.is_finite()) {
        true => Ok(numbers),
        false => Err(json.fail(field, "three finite numbers", format!("{numbers:?}"))),
    }
}
