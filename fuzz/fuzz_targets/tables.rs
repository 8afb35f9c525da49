//! A training set of three pictures whose captions, in a table or in a text beside a picture, are the input.
//!
//! The first byte of an input says which file it is, the rest is in it.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use calotype_fuzz::{SET_OPTIONS, check_error, golden, new_folder};
use calotype_train::dataset::{Dataset, DatasetOptions};
use libfuzzer_sys::fuzz_target;

/// What an input can be.
const FILES: [&str; 4] = ["captions.csv", "a/captions.csv", "metadata.jsonl", "a/b.txt"];

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = new_folder("table");
    for picture in ["a.png", "a/b.png", "c/b.png"] {
        let path = folder.join(picture);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(golden("pictures/one_bit.png"), path).unwrap();
    }
    folder
});

fuzz_target!(|input: &[u8]| {
    let Some((&which, content)) = input.split_first() else { return };
    let Some(name) = FILES.get(which as usize) else { return };
    let path = FOLDER.join(name);
    fs::write(&path, content).unwrap();
    let settings = DatasetOptions { resolution: 8, crop_based_on_salience: false, ..SET_OPTIONS };
    match Dataset::open(&FOLDER, &settings, &str::len, &mut |_, _| ControlFlow::Continue(())) {
        Ok(set) => {
            let captions = set.examples.iter().map(|example| &example.caption);
            captions.for_each(|caption| assert!(!caption.chars().any(char::is_control), "{caption:?}"));
        }
        Err(error) => check_error(error),
    }
    fs::remove_file(path).unwrap();
});
