//! Opens the networks of the steps.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use calotype_models::{read_text, shorten};
use calotype_sdxl::ArgumentError;
use calotype_tensor::DType;
use image::{GrayImage, RgbImage};

use super::faces::{FaceFinder, face_mask};
use super::networks::{Caption, FindMask, FoundMask, Identity, Network, NotFinite, Upscale, ending};
use super::{CaptionDecoding, Captioner, DatasetError, Segmented, Segmenter, Upscaler};
use crate::dataset::note::Note;

/// The pieces of a file that tell it from others, and the bytes of each.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4096;
/// The largest probability from which on the segmenter has found what a prompt names.
const SURE: f32 = 0.3;
/// The most bytes of a network's config.json.
const MAX_CONFIG: u64 = 16 << 20;

/// Tells the network at `path`, a folder or a file, that computes in a number format from others: a checksum of the names and sizes of its files
/// and of samples of their contents, and the format. Files that cannot be read count by their names.
pub fn identity(path: &Path, dtype: DType) -> String {
    let mut crc = flate2::Crc::new();
    let entries = || fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = if path.is_dir() { entries().collect() } else { vec![path.into()] };
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        crc.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        let _ = sample(file, &mut crc); // whoever opens the network reports this
    }
    format!("{:08x}{}", crc.sum(), ending(dtype))
}

fn sample(path: &Path, crc: &mut flate2::Crc) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    crc.update(&length.to_le_bytes());
    let last = length.saturating_sub(SAMPLE_BYTES);
    let mut bytes = Vec::new();
    for piece in 0..SAMPLES {
        bytes.clear();
        file.seek(SeekFrom::Start(last * piece / (SAMPLES - 1)))?;
        (&mut file).take(SAMPLE_BYTES).read_to_end(&mut bytes)?;
        crc.update(&bytes);
    }
    Ok(())
}

/// What makes masks of faces, which the program carries.
pub fn faces_identity() -> Identity {
    Identity::Known("faces".into())
}

/// An error if a folder is not that of a network of this `model_type`, so that no work is done before it is found out. What else may
/// be wrong is found where the network is opened.
fn check_type(option: &str, path: &Path, model_type: &str) -> Result<(), DatasetError> {
    let wrong = |found: String| {
        let expected = format!("a network of model_type {model_type}");
        let found = format!("{} {found}", shorten(&path.to_string_lossy()));
        Err(ArgumentError::new(option, expected, found).into())
    };
    if !path.is_dir() {
        return Ok(());
    }
    let text = match read_text(&path.join("config.json"), MAX_CONFIG) {
        Ok(text) => text,
        Err(_) => return wrong("without a config.json".into()),
    };
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    match config["model_type"].as_str() {
        Some(found) if found == model_type => Ok(()),
        Some(found) => wrong(format!("of {}", shorten(found))),
        None => wrong("without a model_type in its config.json".into()),
    }
}

/// The error of a network that cannot be opened.
fn unusable(option: &'static str, problem: calotype_models::Error) -> DatasetError {
    DatasetError::Network { option, problem }
}

/// The error of a network in `path` whose values are no numbers.
fn not_finite(option: &'static str, path: &Path, dtype: DType) -> impl Fn(NotFinite) -> DatasetError + use<> {
    let path = path.display().to_string();
    move |NotFinite| DatasetError::NotFinite { option, path: path.clone(), dtype }
}

/// The error of a prompt that the segmenter does not read as a whole.
fn refused(e: calotype_sdxl::Error) -> DatasetError {
    match e {
        calotype_sdxl::Error::Argument(e) => e.into(),
        e => {
            let expected = "a prompt that the segmenter's tokenizer knows";
            ArgumentError::new("mask_target_prompts", expected, shorten(&e.to_string())).into()
        }
    }
}

impl Network<'static, FindMask> {
    /// Masks of faces: the outlines of all faces count, and the largest one decides the crop.
    pub fn faces() -> Self {
        let open = || {
            let finder = FaceFinder::carried();
            Ok(Box::new(move |picture: &RgbImage| Ok(faces_of(&finder, picture))) as Box<FindMask>)
        };
        Network::new("faces".into(), Box::new(open))
    }

    /// Masks of what `prompt` names, by the segmenter in a folder. A temperature above 1 makes masks softer. Where nothing is found, all of
    /// the picture counts, because a mask would be noise.
    ///
    /// # Errors
    /// The folder is that of another network.
    pub fn segmenter(
        path: PathBuf,
        prompt: String,
        temperature: f64,
        dtype: DType,
    ) -> Result<Self, DatasetError> {
        check_type("--segmenter", &path, "clipseg")?;
        let identity = identity(&path, dtype);
        let open = move || {
            let broken = not_finite("--segmenter", &path, dtype);
            let segmenter = Segmenter::open(&path, dtype).map_err(|e| unusable("--segmenter", e))?;
            let encoded = segmenter.prompt(&prompt).map_err(refused)?;
            Ok(Box::new(move |picture: &RgbImage| {
                let found = segmenter.segment(picture, &encoded, temperature as f32).map_err(&broken)?;
                Ok(sure(&prompt, found))
            }) as Box<FindMask>)
        };
        Ok(Network::new(identity, Box::new(open)))
    }
}

/// What a segmenter has found, or all of the picture if that is nothing of the kind.
fn sure(prompt: &str, found: Segmented) -> FoundMask {
    let mut mask = FoundMask::new(found.mask);
    if found.largest < SURE {
        mask.mask.pixels_mut().for_each(|pixel| pixel.0 = [u8::MAX]);
        mask.notes.push(Note::Nothing { prompt: prompt.into(), largest: found.largest });
    }
    mask
}

/// The mask of a picture's faces.
fn faces_of(finder: &FaceFinder, picture: &RgbImage) -> FoundMask {
    let (size, faces) = (picture.dimensions(), finder.find(picture));
    let notes = match faces.len() {
        0 => vec![Note::NoFace],
        1 => Vec::new(),
        count => vec![Note::Faces(count)],
    };
    let crop = faces.first().map(|largest| {
        let mut alone = GrayImage::new(size.0, size.1);
        largest.outline.fill(&mut alone);
        alone
    });
    FoundMask { mask: face_mask(size, &faces), crop, notes }
}

impl Network<'static, Upscale> {
    /// The upscaler in a folder or a file.
    ///
    /// # Errors
    /// The folder is that of another network.
    pub fn upscaler(path: PathBuf, dtype: DType) -> Result<Self, DatasetError> {
        // SwinIR has no config.json.
        if path.join("config.json").exists() {
            check_type("--upscaler", &path, "swin2sr")?;
        }
        let identity = identity(&path, dtype);
        let open = move || {
            let broken = not_finite("--upscaler", &path, dtype);
            let upscaler = Upscaler::open(&path, dtype).map_err(|e| unusable("--upscaler", e))?;
            let upscale = move |picture: &RgbImage| upscaler.upscale(picture).map_err(&broken);
            Ok(Box::new(upscale) as Box<Upscale>)
        };
        Ok(Network::new(identity, Box::new(open)))
    }
}

impl Network<'static, Caption> {
    /// The captioner in a folder.
    ///
    /// # Errors
    /// The folder is that of another network.
    pub fn captioner(path: PathBuf, decoding: CaptionDecoding, dtype: DType) -> Result<Self, DatasetError> {
        check_type("--captioner", &path, "blip")?;
        let identity = identity(&path, dtype);
        let open = move || {
            let broken = not_finite("--captioner", &path, dtype);
            let captioner = Captioner::open(&path, dtype).map_err(|e| unusable("--captioner", e))?;
            let caption = move |picture: &RgbImage, seed: u64| {
                captioner.caption(picture, decoding, seed).map_err(&broken)
            };
            Ok(Box::new(caption) as Box<Caption>)
        };
        Ok(Network::new(identity, Box::new(open)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects results of another network: its identity differs by a file's name, length or content, at the end of a large file too, and by
    /// the number format, and not by its place.
    #[test]
    fn networks_are_told_apart() {
        let here = tempfile::tempdir().expect("a directory");
        let network = |name: &str, files: &[(&str, &[u8])]| {
            let folder = here.path().join(name);
            fs::create_dir(&folder).expect("made");
            files.iter().for_each(|(file, content)| fs::write(folder.join(file), content).expect("written"));
            identity(&folder, DType::F32)
        };
        let (zeros, mut last) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        last[(1 << 20) - 1] = 1;
        let all = [
            network("a", &[("config.json", b"{}"), ("model.bin", &zeros)]),
            network("b", &[("config.json", b"{}"), ("model.bin", &last)]),
            network("c", &[("config.json", b"{}"), ("model.bin", &zeros[1..])]),
            network("d", &[("config.json", b"{}"), ("other.bin", &zeros)]),
        ];
        let distinct: std::collections::HashSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(network("e", &[("config.json", b"{}"), ("model.bin", &zeros)]), all[0]);
        assert_ne!(identity(&here.path().join("e"), DType::BF16), all[0]);
    }

    /// Protects masks: where nothing was found, all of the picture counts, and a note says so.
    #[test]
    fn nothing_found_is_no_mask() {
        let found =
            |largest| sure("a dog", Segmented { mask: GrayImage::from_pixel(3, 2, [9].into()), largest });
        let (none, some) = (found(0.04), found(SURE));
        assert!(none.mask.pixels().all(|pixel| pixel.0 == [255]) && some.mask.pixels().all(|p| p.0 == [9]));
        assert_eq!(none.notes, [Note::Nothing { prompt: "a dog".into(), largest: 0.04 }]);
        assert_eq!(some.notes, []);
    }

    /// Protects against the folder of another network: it is refused before any work is done, with what it is.
    #[test]
    fn other_networks_are_refused() {
        let here = tempfile::tempdir().expect("a directory");
        let refusal = |config: Option<&str>| {
            let path = here.path().join("config.json");
            config.map_or_else(
                || drop(fs::remove_file(&path)),
                |text| fs::write(&path, text).expect("written"),
            );
            check_type("--captioner", here.path(), "blip")
                .map_err(|e| e.to_string())
                .err()
                .unwrap_or_default()
        };
        assert_eq!(refusal(Some(r#"{"model_type": "blip"}"#)), "");
        for (config, says) in [
            (Some(r#"{"model_type": "clipseg"}"#), "of clipseg"),
            (Some("[]"), "without a model_type in its config.json"),
            (Some("{"), "without a model_type in its config.json"),
            (None, "without a config.json"),
        ] {
            let said = refusal(config);
            let begin = "--captioner: expected a network of model_type blip, found ";
            assert!(said.starts_with(begin) && said.ends_with(says), "{said}");
        }
    }
}
