//! What a file of a training set is for, by its name.

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A picture to learn from.
    Picture,
    /// `NAME.mask.png`: what of the picture `NAME` matters.
    Mask,
    /// The captions of all pictures, as CSV.
    Table,
    /// The caption of one picture, or any other text.
    Text,
    /// Nothing that a training uses.
    Other,
}

const PICTURES: [&str; 9] = ["png", "jpg", "jpeg", "jfif", "webp", "bmp", "gif", "tif", "tiff"];
const MASK: &str = ".mask.png";

impl Kind {
    /// The kind of the file at `name`; `None` for what systems leave in archives, which is passed over silently.
    pub(super) fn of(name: &str) -> Option<Kind> {
        let litter = |part: &str| {
            part.starts_with('.')
                || ["__MACOSX", "Thumbs.db", "desktop.ini"].iter().any(|l| part.eq_ignore_ascii_case(l))
        };
        if name.split('/').any(litter) {
            return None;
        }
        let base = base(name).to_ascii_lowercase();
        let extension = base.rsplit_once('.').map_or("", |(_, extension)| extension);
        Some(match extension {
            _ if base.ends_with(MASK) => Kind::Mask,
            "csv" if base.contains("caption") => Kind::Table,
            "txt" => Kind::Text,
            _ if PICTURES.contains(&extension) => Kind::Picture,
            _ => Kind::Other,
        })
    }
}

/// A file's name without its folders.
pub(super) fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A file's path without its extension (of a mask, without `.mask.png`): what belongs together has the same.
pub(super) fn stem(name: &str) -> &str {
    let cut = |length: usize| name.len().checked_sub(length).and_then(|end| name.get(..end));
    let is_mask = Kind::of(name) == Some(Kind::Mask);
    let extension = base(name).rfind('.').map_or(0, |dot| base(name).len() - dot);
    cut(if is_mask { MASK.len() } else { extension }).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: files are told apart in any letter case and folder, and systems' litter is nothing at all.
    #[test]
    fn kinds_by_name() {
        let kind = |name| Kind::of(name).map(|k| format!("{k:?}")).unwrap_or_default();
        assert_eq!(kind("a/b/C.JPG"), "Picture");
        assert_eq!(kind("x (1).tiff"), "Picture");
        assert_eq!(kind("a.Mask.PNG"), "Mask");
        assert_eq!(kind("a.mask.jpg"), "Picture");
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

    /// Protects: a picture, its mask and its text have one stem; a dot in a folder's name is no extension.
    #[test]
    fn stems() {
        for name in ["a.b/c.png", "a.b/c.mask.png", "a.b/c.MASK.PNG", "a.b/c.txt", "a.b/c"] {
            assert_eq!(stem(name), "a.b/c");
        }
        assert_eq!(stem("é.mask.png"), "é");
    }
}
