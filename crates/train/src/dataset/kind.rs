//! The use of a training set's file, by its name.

use unicode_normalization::UnicodeNormalization;

/// The use of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A picture to learn from.
    Picture,
    /// `NAME.mask.png`, `NAME-masklabel.png`: the weights of the pixels of picture `NAME`.
    Mask,
    /// The captions of all pictures, as CSV or JSON lines.
    Table,
    /// The caption of one picture, or any other text.
    Text,
    /// A picture in a format that is not supported.
    Unread,
    /// A file that a training does not use.
    Other,
}

const PICTURES: [&str; 9] = ["png", "jpg", "jpeg", "jfif", "webp", "bmp", "gif", "tif", "tiff"];
/// Extensions of picture formats that are not supported.
const UNREAD: [&str; 26] = [
    "heic", "heif", "hif", "avif", "jxl", "jp2", "j2k", "psd", "psb", "xcf", "pdf", "svg", "tga", "exr",
    "hdr", "ico", "dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "pef", "srw",
];
const TEXTS: [&str; 2] = ["txt", "caption"];
/// The suffixes of masks' names, of this project and of OneTrainer.
const MASKS: [&str; 2] = [".mask", "-masklabel"];
/// Suffixes that a picture's name may have too. Such a file is a mask only if the picture that it names exists.
const MAYBE_MASKS: [&str; 2] = ["_mask", "-mask"];
/// Folders of masks, and the folders of pictures that may exist beside them.
const MASK_FOLDERS: [&str; 2] = ["masks", "mask"];
const PICTURE_FOLDERS: [&str; 7] = ["", "images/", "image/", "img/", "imgs/", "photos/", "pictures/"];
/// Files and folders that systems and programs create.
const SYSTEM_FILES: [&str; 7] = [
    "__MACOSX",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
];

impl FileKind {
    /// The use of the file at `name`. `None`: a file that systems create, which is ignored silently.
    pub(super) fn of(name: &str) -> Option<FileKind> {
        let is_system_file =
            |part: &str| part.starts_with('.') || SYSTEM_FILES.iter().any(|l| part.eq_ignore_ascii_case(l));
        if name.split('/').any(is_system_file) {
            return None;
        }
        let base = base(name).to_ascii_lowercase();
        let (start, extension) = base.rsplit_once('.').unwrap_or((&base, ""));
        let is_picture = PICTURES.contains(&extension);
        Some(match extension {
            _ if is_picture && MASKS.iter().any(|mask| start.ends_with(mask)) => FileKind::Mask,
            _ if base == "contact_sheet.png" => FileKind::Other,
            "csv" | "jsonl" if start.contains("caption") || start == "metadata" => FileKind::Table,
            _ if TEXTS.contains(&extension) => FileKind::Text,
            _ if is_picture => FileKind::Picture,
            _ if UNREAD.contains(&extension) => FileKind::Unread,
            _ => FileKind::Other,
        })
    }
}

/// A file's name without its folders.
pub(crate) fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A file's path in normal form (NFC): systems write accents as part of a letter, or after it.
pub(super) fn normal(name: &str) -> String {
    name.nfc().collect()
}

/// A file's path without its extension, in normal form. Files that belong together have the same stem.
pub(crate) fn stem(name: &str) -> String {
    let extension = base(name).rfind('.').map_or(0, |dot| base(name).len() - dot);
    normal(&name[..name.len() - extension])
}

/// The possible stems of the picture to which the mask at `name` belongs.
pub(super) fn masked(name: &str) -> Vec<String> {
    let whole = stem(name);
    let cut = MASKS.iter().chain(&MAYBE_MASKS).find_map(|mask| {
        let end = whole.len().checked_sub(mask.len())?;
        whole.get(end..).filter(|tail| tail.eq_ignore_ascii_case(mask)).map(|_| &whole[..end])
    });
    let mut stems: Vec<String> = cut.map(str::to_owned).into_iter().collect();
    let base = base(cut.unwrap_or(&whole));
    let (folder, _) = whole.rsplit_once('/').unwrap_or(("", ""));
    let (outside, last) = folder.rsplit_once('/').map_or(("", folder), |(o, l)| (o, l));
    if MASK_FOLDERS.iter().any(|name| last.eq_ignore_ascii_case(name)) {
        let outside = if outside.is_empty() { String::new() } else { format!("{outside}/") };
        stems.extend(PICTURE_FOLDERS.iter().map(|folder| format!("{outside}{folder}{base}")));
    }
    stems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the recognition of files in any letter case and folder. Files that systems create are ignored.
    #[test]
    fn kinds_by_name() {
        let kind = |name| FileKind::of(name).map(|k| format!("{k:?}")).unwrap_or_default();
        assert_eq!(kind("a/b/C.JPG"), "Picture");
        assert_eq!(kind("x (1).tiff"), "Picture");
        assert_eq!(kind("a.Mask.PNG"), "Mask");
        assert_eq!(kind("a.mask.jpg"), "Mask");
        assert_eq!(kind("a-masklabel.png"), "Mask");
        assert_eq!(kind("a_mask.png"), "Picture");
        assert_eq!(kind("metadata.jsonl"), "Table");
        assert_eq!(kind("IMG_1.HEIC"), "Unread");
        assert_eq!(kind("a.caption"), "Text");
        assert_eq!(kind("my_Captions.CSV"), "Table");
        assert_eq!(kind("other.csv"), "Other");
        assert_eq!(kind("a.TXT"), "Text");
        assert_eq!(kind("png"), "Other");
        assert_eq!(kind("movie.mp4"), "Other");
        for litter in [
            "__MACOSX/._a.png",
            "a/__MACOSX/b.png",
            ".hidden.png",
            ".git/a.png",
            "b/Thumbs.db",
            "Desktop.ini",
        ] {
            assert_eq!(kind(litter), "", "{litter}");
        }
    }

    /// Protects stems: a picture and its text have the same, in either form of accents. A dot in a folder's name does not begin
    /// an extension.
    #[test]
    fn stems() {
        for name in ["a.b/c.png", "a.b/c.txt", "a.b/c"] {
            assert_eq!(stem(name), "a.b/c");
        }
        assert_eq!(stem("cafe\u{301}.png"), "caf\u{e9}");
    }

    /// Protects the recognition of masks by the names that other programs give them.
    #[test]
    fn masks_name_their_pictures() {
        for name in ["x/a.mask.png", "x/a.MASK.jpg", "x/a-masklabel.png", "x/a_mask.webp", "x/a-mask.png"] {
            assert_eq!(masked(name), ["x/a"], "{name}");
        }
        assert!(masked("x/masks/a.png").contains(&"x/a".to_owned()));
        assert!(masked("Masks/a_mask.png").contains(&"images/a".to_owned()));
        assert_eq!(masked("x/a.png"), [""; 0]);
        assert_eq!(masked("é.mask.png"), ["é"]);
    }
}
