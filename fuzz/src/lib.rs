//! What all targets share: the limit of memory, the check of messages, and folders to put an input into.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use calotype_train::dataset::{DatasetOptions, FileType};

/// The options with which targets open a training set.
pub const SET_OPTIONS: DatasetOptions = DatasetOptions {
    resolution: 16,
    file_type: FileType::Infer,
    token_string: "TOK",
    caption_prefix: "a photo of TOK",
    crop_based_on_salience: true,
};

/// The most bytes that may be allocated at once: a picture may take 800 MB while it is decoded.
const MAX_ALLOCATED: usize = 1 << 30;

/// Counts the bytes that are allocated, and ends the process above the limit, so that libFuzzer keeps the input.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static TOO_MUCH: AtomicBool = AtomicBool::new(false);

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    // The message itself allocates.
    if live > MAX_ALLOCATED && !TOO_MUCH.swap(true, Relaxed) {
        let trace = Backtrace::force_capture();
        eprintln!(
            "{live} bytes are allocated, {bytes} of them just now: expected at most {MAX_ALLOCATED}\n{trace}"
        );
        std::process::abort();
    }
}

// SAFETY: everything is the system's allocator's work; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match size.checked_sub(layout.size()) {
            Some(more) => grow(more),
            None => _ = LIVE.fetch_sub(layout.size() - size, Relaxed),
        }
        // SAFETY: the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// The most bytes of a message: some name fifty files.
const MAX_MESSAGE: usize = 10_000;

/// Asserts that a message is one line without control characters.
pub fn check_message(message: &impl Display) {
    let text = message.to_string();
    assert!(!text.is_empty() && text.len() <= MAX_MESSAGE, "{} bytes: {text:?}", text.len());
    assert!(!text.chars().any(char::is_control), "a control character: {text:?}");
}

/// Asserts that an error's message is one line, and that it blames the input.
pub fn check_error(error: impl Into<calotype_train::Error>) {
    use calotype_train::Error;
    let error = error.into();
    check_message(&error);
    let blames_input = match &error {
        Error::Sdxl(error) => {
            !matches!(error, calotype_sdxl::Error::NotFinite | calotype_sdxl::Error::Interrupted)
        }
        Error::Dataset(_) | Error::Checkpoint(_) | Error::RunDir { .. } => true,
        Error::Io { .. } | Error::Diverged { .. } | Error::Interrupted => false,
    };
    assert!(blames_input, "{error}");
}

/// An empty folder of this process. `run.sh` removes the one that it is in.
pub fn new_folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("calotype-fuzz-{name}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&path));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A golden file or folder.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/sdxl/tests/golden").join(name)
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(std::fs::copy(&path, &target).is_ok()) }
    }
}
