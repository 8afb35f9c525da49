//! Training sets: what is read out of archives and folders, and every wrong set as an error that names the file.

mod captions;
mod containers;
mod pictures;
#[path = "../../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::io::{Cursor, Write};
use std::ops::ControlFlow;
use std::path::Path;

use calotype_train::Error;
use calotype_train::dataset::FileType;
use calotype_train::dataset::{Dataset, DatasetError, DatasetOptions};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use temp::Temp;

type Files<'a> = &'a [(&'a str, Vec<u8>)];

const SETTINGS: DatasetOptions = DatasetOptions {
    resolution: 16,
    file_type: FileType::Infer,
    token_string: "TOK",
    caption_prefix: "a photo of TOK, ",
    crop_based_on_salience: true,
};

fn encode(picture: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// A PNG in shades that depend on `seed`.
fn picture(width: u32, height: u32, seed: u8) -> Vec<u8> {
    let shade = |x: u32, y: u32| Rgb([seed, (x * 255 / width) as u8, (y * 255 / height) as u8]);
    encode(RgbImage::from_fn(width, height, shade), ImageFormat::Png)
}

/// A mask that is white in the columns `white`.
fn mask(width: u32, height: u32, white: std::ops::Range<u32>) -> Vec<u8> {
    let value = |x, _| [if white.contains(&x) { 255 } else { 0 }].into();
    encode(GrayImage::from_fn(width, height, value), ImageFormat::Png)
}

fn zip(files: Files) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A tar with names as they are, however bad.
fn tar(files: Files) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As many tokens as words, and those of start and end.
fn words(caption: &str) -> usize {
    caption.split(' ').count() + 2
}

fn open(path: &Path, settings: &DatasetOptions) -> Result<Dataset, DatasetError> {
    Dataset::open(path, settings, &words, &mut |_, _| ControlFlow::Continue(()))
}

fn open_bytes(bytes: &[u8], settings: &DatasetOptions) -> Result<Dataset, DatasetError> {
    let temp = Temp::new();
    open(&temp.write("set", bytes), settings)
}

fn open_files(files: Files, settings: &DatasetOptions) -> Result<Dataset, DatasetError> {
    open_bytes(&zip(files), settings)
}

fn set(files: Files) -> Dataset {
    open_files(files, &SETTINGS).unwrap()
}

/// The error of a set: one line.
#[track_caller]
fn one_line(result: Result<Dataset, DatasetError>) -> String {
    let error = Error::from(result.map(|set| set.report()).expect_err("an error"));
    assert!(matches!(error, Error::Dataset(_)), "the caller's to mend");
    let text = error.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 1000, "one short line: {text:?}");
    text
}

#[track_caller]
fn error(files: Files) -> String {
    one_line(open_files(files, &SETTINGS))
}

fn names(set: &Dataset) -> Vec<&str> {
    set.examples.iter().map(|e| e.name.as_str()).collect()
}

fn captions(set: &Dataset) -> Vec<&str> {
    set.examples.iter().map(|e| e.caption.as_str()).collect()
}
