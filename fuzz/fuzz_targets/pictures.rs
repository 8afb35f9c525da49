//! A training set whose only picture, or the mask of whose only picture, is the input.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use calotype_fuzz::{SET_OPTIONS, check_error, golden, new_folder};
use calotype_train::dataset::Dataset;
use libfuzzer_sys::fuzz_target;

/// Folders with `a.png` and `a.mask.png`.
static FOLDERS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let folders = [new_folder("picture"), new_folder("mask")];
    fs::copy(golden("pictures/rgb.png"), folders[1].join("a.png")).unwrap();
    folders
});

fuzz_target!(|input: &[u8]| {
    for (folder, name) in FOLDERS.iter().zip(["a.png", "a.mask.png"]) {
        fs::write(folder.join(name), input).unwrap();
        match Dataset::open(folder, &SET_OPTIONS, &str::len, &mut |_, _| ControlFlow::Continue(())) {
            Ok(set) => assert_eq!(set.examples[0].rgb.len(), 16 * 16 * 3),
            Err(error) => check_error(error),
        }
    }
});
