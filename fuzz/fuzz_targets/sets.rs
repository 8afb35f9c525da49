//! A training set in one file: a zip, a tar, or either of them gzipped.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use calotype_fuzz::{check_error, new_folder};
use calotype_train::dataset::{self, Dataset, DatasetOptions, FileType};
use libfuzzer_sys::fuzz_target;

static SET: LazyLock<PathBuf> = LazyLock::new(|| new_folder("set").join("set"));

fuzz_target!(|input: &[u8]| {
    fs::write(&*SET, input).unwrap();
    let settings = DatasetOptions {
        resolution: 16,
        file_type: FileType::Infer,
        token_string: "TOK",
        caption_prefix: "a photo of TOK",
        crop_based_on_salience: true,
    };
    match Dataset::open(&SET, &settings, &str::len, &mut |_, _| ControlFlow::Continue(())) {
        Ok(set) => {
            // A table of several lines.
            let report = set.report();
            assert!(!report.chars().any(|c| c.is_control() && c != '\n'), "{report:?}");
            set.contact_sheet();
            dataset::fingerprint(&set.examples);
        }
        Err(error) => check_error(error),
    }
});
