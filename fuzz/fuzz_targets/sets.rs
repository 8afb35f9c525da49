//! A training set in one file: a zip, a tar, or either of them gzipped.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use calotype_fuzz::{SET_OPTIONS, check_error, new_folder};
use calotype_train::dataset::{self, Dataset};
use libfuzzer_sys::fuzz_target;

static SET: LazyLock<PathBuf> = LazyLock::new(|| new_folder("set").join("set"));

fuzz_target!(|input: &[u8]| {
    fs::write(&*SET, input).unwrap();
    match Dataset::open(&SET, &SET_OPTIONS, &str::len, &mut |_, _| ControlFlow::Continue(())) {
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
