//! Opens the networks of the steps.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::networks::{Caption, Identity, MakeMask, Network, Upscale};
use super::{CaptionDecoding, DatasetError};
use calotype_sdxl::ArgumentError;

/// The pieces of a file that tell it from others, and the bytes of each.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4096;

/// A checksum that tells the network at `path`, a folder or a file, from others: of the names and sizes of its files, and of samples
/// of their contents. Files that cannot be read count by their names.
pub fn identity(path: &Path) -> String {
    let mut crc = flate2::Crc::new();
    let entries = || fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = if path.is_dir() { entries().collect() } else { vec![path.into()] };
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        crc.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        let _ = sample(file, &mut crc); // whoever opens the network reports this
    }
    format!("{:08x}", crc.sum())
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

fn not_yet(name: &str) -> DatasetError {
    ArgumentError::new(name, "a set that needs no network: they are not there yet", "one that needs some")
        .into()
}

impl Network<'static, MakeMask> {
    /// Masks of faces: the outlines of all faces count, and the largest one decides the crop.
    pub fn faces() -> Self {
        Network::new("faces".into(), Box::new(|| Err(not_yet("use_face_detection_instead"))))
    }

    /// Masks of what `prompt` names, by the segmenter in a folder.
    pub fn segmenter(path: PathBuf, _prompt: String, _temperature: f64) -> Self {
        Network::new(identity(&path), Box::new(|| Err(not_yet("mask_target_prompts"))))
    }
}

impl Network<'static, Upscale> {
    /// The upscaler in a folder or a file.
    pub fn upscaler(path: PathBuf) -> Self {
        Network::new(identity(&path), Box::new(|| Err(not_yet("--upscaler"))))
    }
}

impl Network<'static, Caption> {
    /// The captioner in a folder.
    pub fn captioner(path: PathBuf, _decoding: CaptionDecoding) -> Self {
        Network::new(identity(&path), Box::new(|| Err(not_yet("--captioner"))))
    }
}
