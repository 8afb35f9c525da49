//! What can be wrong with a training set.

use calotype_models::shorten;
use calotype_models::tokenizer::CLIP_TOKENS;
use calotype_sdxl::ArgumentError;

/// How many files a message names before it counts the rest.
const NAMED: usize = 3;

/// A training set that cannot be used. One line, about the request's field or the file in the set; always the
/// caller's to mend.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// An argument: a `caption_prefix` without the token.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A set that cannot be opened or read, or a picture in it that there is nothing to learn from.
    #[error("input_images: {}: {reason}", shorten(path))]
    Open {
        /// The set, or the picture.
        path: String,
        /// Why not.
        reason: String,
    },
    /// An entry of the archive that no archive of pictures has, such as a link or a path out of the archive.
    #[error("{name}: {problem}")]
    Entry {
        /// The entry, as the archive calls it.
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
    /// A picture with more pixels than are decoded.
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
    /// The headers of all pictures and masks claim more pixels than their files could honestly hold.
    #[error(
        "input_images: expected at most {limit} pixels in all pictures together, found {pixels}: use fewer or smaller ones"
    )]
    TooManyPixelsInAll {
        /// The pixels of all.
        pixels: u64,
        /// The most that are decoded, which follows the bytes of the set.
        limit: u64,
    },
    /// The caller stopped the reading.
    #[error("interrupted")]
    Interrupted,
    /// More pictures than fit into memory at the training's resolution.
    #[error(
        "input_images: {count} pictures of {resolution} × {resolution} take more than {}: use fewer",
        bytes(*limit)
    )]
    TooManyPictures {
        /// The pictures of the set.
        count: usize,
        /// The training's resolution.
        resolution: usize,
        /// The most that the prepared pictures may take, in bytes.
        limit: u64,
    },
    /// No picture is left to learn from.
    #[error("input_images: no picture in the set{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    NoPicture {
        /// Why the pictures that there are cannot be used.
        reason: Option<String>,
    },
    /// A file with captions that cannot be used.
    #[error("{file}: {problem}")]
    Caption {
        /// The file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A mask that does not fit its picture.
    #[error("{file}: {problem}")]
    Mask {
        /// The mask's file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// No caption names what is to be learnt.
    #[error(
        "input_images: expected a caption with the token_string {token} as a word of its own, found none"
    )]
    NoToken {
        /// The token.
        token: String,
    },
    /// Where captions name what is to be learnt, CLIP does not see it.
    #[error(
        "input_images: expected the token_string {token} among the first {CLIP_TOKENS} tokens of a caption, found it after them: put it at the beginning"
    )]
    TokenCut {
        /// The token.
        token: String,
    },
}

impl DatasetError {
    /// The set itself cannot be opened or read.
    pub(super) fn open(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::Open { path: path.display().to_string(), reason: reason.into() }
    }

    pub(super) fn entry(name: &str, problem: impl Into<String>) -> Self {
        Self::Entry { name: shorten(name), problem: problem.into() }
    }

    pub(super) fn caption(file: &str, problem: impl Into<String>) -> Self {
        Self::Caption { file: shorten(file), problem: problem.into() }
    }

    pub(super) fn mask(file: &str, problem: impl Into<String>) -> Self {
        Self::Mask { file: shorten(file), problem: problem.into() }
    }
}

/// `a.png, b.png, c.png and 4 more`, in one line whatever the names hold.
pub(super) fn list(names: &[&str]) -> String {
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

/// A number of bytes, as people write it.
pub(super) fn bytes(n: u64) -> String {
    match n {
        _ if n >= 1 << 30 => format!("{} GiB", n >> 30),
        _ if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} MiB", n >> 20),
        _ => format!("{n} bytes"),
    }
}
