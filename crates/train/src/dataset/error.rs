//! Errors of a training set.

use calotype_models::shorten;
use calotype_models::tokenizer::CLIP_TOKENS;
use calotype_sdxl::ArgumentError;

/// The number of files that a message names before it counts the others.
const NAMED: usize = 3;

/// A training set that cannot be used. The message is one line about the request's field or the file in the set. The caller can
/// fix the set, but for [`Self::Io`].
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// An argument is invalid: `caption_prefix` lacks the token.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The set cannot be opened or read, or a picture has nothing to learn from.
    #[error("input_images: {}: {reason}", shorten(path))]
    Open {
        /// The set, or the picture.
        path: String,
        /// The reason.
        reason: String,
    },
    /// An archive has an entry that no archive of pictures should have, such as a link or a path out of the archive.
    #[error("{name}: {problem}")]
    Entry {
        /// The entry's name in the archive.
        name: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The archive unpacks to more than is allowed.
    #[error("input_images: expected at most {} when unpacked, found more", bytes(*limit))]
    TooBig {
        /// The most that may be unpacked, in bytes.
        limit: u64,
    },
    /// A picture has more pixels than are decoded.
    #[error("{name}: expected at most {limit} pixels, found {width} × {height}")]
    TooManyPixels {
        /// The picture.
        name: String,
        /// Its width, in pixels.
        width: u32,
        /// Its height, in pixels.
        height: u32,
        /// The most pixels that are decoded.
        limit: u64,
    },
    /// All pictures and masks together have more pixels, by their headers, than files of their size plausibly have.
    #[error(
        "input_images: expected at most {limit} pixels in all pictures together, found {pixels}: use fewer or smaller ones"
    )]
    TooManyPixelsInAll {
        /// The pixels of all pictures and masks.
        pixels: u64,
        /// The most that are decoded, which depends on the size of the set in bytes.
        limit: u64,
    },
    /// A network of the preprocessing cannot be used.
    #[error("{option}: {problem}")]
    Network {
        /// The setting that names the network.
        option: &'static str,
        /// The file, and what was expected and found.
        problem: calotype_models::Error,
    },
    /// A network of the preprocessing computed values that are no numbers.
    #[error(
        "{option}: {}: computes values that are no numbers: its weights are damaged, or too large for {dtype}",
        shorten(path)
    )]
    NotFinite {
        /// The setting that names the network.
        option: &'static str,
        /// The network's folder or file.
        path: String,
        /// The number format that it computed in.
        dtype: calotype_tensor::DType,
    },
    /// A file of a made set cannot be used.
    #[error("{}: {problem}", shorten(path))]
    MadeSet {
        /// The file.
        path: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A file of the set that is made cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The caller stopped the reading.
    #[error("interrupted")]
    Interrupted,
    /// The set has more pictures than fit into memory at the training's resolution.
    #[error(
        "input_images: {count} pictures of {resolution} × {resolution} take more than {}: use fewer",
        bytes(*limit)
    )]
    TooManyPictures {
        /// The number of pictures in the set.
        count: usize,
        /// The training's resolution.
        resolution: usize,
        /// The most that the prepared pictures may take, in bytes.
        limit: u64,
    },
    /// The set has no picture to learn from.
    #[error("input_images: no picture in the set{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    NoPicture {
        /// The reason why the set's pictures cannot be used.
        reason: Option<String>,
    },
    /// A file with captions cannot be used.
    #[error("{file}: {problem}")]
    Caption {
        /// The file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A mask cannot be used, or does not fit its picture.
    #[error("{file}: {problem}")]
    Mask {
        /// The mask's file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// No caption contains the token.
    #[error(
        "input_images: expected a caption with the token_string {token} as a word of its own, found none"
    )]
    NoToken {
        /// The token.
        token: String,
    },
    /// The token is in captions, but after the tokens that CLIP reads.
    #[error(
        "input_images: expected the token_string {token} among the first {CLIP_TOKENS} tokens of a caption, found it after them: put it at the beginning"
    )]
    TokenCut {
        /// The token.
        token: String,
    },
}

impl DatasetError {
    /// The error of a set that cannot be opened or read.
    pub(super) fn open(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::Open { path: path.display().to_string(), reason: reason.into() }
    }

    /// Whether the message begins with a file of the set, instead of with the request's field or an option.
    pub fn is_of_file(&self) -> bool {
        use DatasetError::{Caption, Entry, Mask, TooManyPixels};
        matches!(self, Caption { .. } | Entry { .. } | Mask { .. } | TooManyPixels { .. })
    }

    pub(super) fn entry(name: &str, problem: impl Into<String>) -> Self {
        Self::Entry { name: shorten(name), problem: problem.into() }
    }

    pub(super) fn caption(file: &str, problem: impl Into<String>) -> Self {
        Self::Caption { file: shorten(file), problem: problem.into() }
    }

    pub(crate) fn mask(file: &str, problem: impl Into<String>) -> Self {
        Self::Mask { file: shorten(file), problem: problem.into() }
    }
}

/// `a.png, b.png, c.png and 4 more`, on one line, whatever characters the names have.
pub(crate) fn list(names: &[&str]) -> String {
    list_most(names, NAMED)
}

/// The same with the first `most` names.
pub(super) fn list_most(names: &[&str], most: usize) -> String {
    let first: Vec<String> = names.iter().take(most).map(|n| shorten(n)).collect();
    match names.len().saturating_sub(most) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// A number of bytes, written for people.
pub(super) fn bytes(n: u64) -> String {
    match n {
        _ if n >= 1 << 30 => format!("{} GiB", n >> 30),
        _ if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} MiB", n >> 20),
        _ => format!("{n} bytes"),
    }
}
