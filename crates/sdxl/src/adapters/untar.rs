//! The members of a tar of trained weights.

use std::io::Cursor;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use super::AdapterError;
use super::members::{Member, Members, known};
use calotype_models::shorten;

/// The block size of a tar, in bytes.
const BLOCK: usize = 512;

/// A member of a tar, as described by its header.
struct Entry {
    /// The path in the tar.
    shown: String,
    kind: tar::EntryType,
    bytes: Range<usize>,
}

/// The members by name, in any order. They may be in a folder of the tar, if it is the same for all. Files that macOS and
/// Windows add are ignored.
///
/// # Errors
/// A member is unknown, is not a file, occurs twice or ends beyond the tar, or the tar is empty or has no end.
pub(super) fn members(file: &Member) -> Result<Members, AdapterError> {
    let fail = |problem: String| AdapterError::file(&file.path, problem);
    let mut members = Members::new();
    let mut folder: Option<PathBuf> = None;
    for Entry { shown, kind, bytes } in entries(file)? {
        let Some((parent, name)) = place(&shown).filter(|(_, name)| kind.is_dir() || known(name).is_some())
        else {
            if is_system_file(&shown) {
                continue;
            }
            return Err(fail(format!("{shown:?}: expected no other members than {}", expected())));
        };
        let Some(name) = known(&name) else { continue }; // a folder
        if !kind.is_file() {
            return Err(fail(format!("{shown:?}: expected a file, found a member of another kind")));
        }
        if *folder.get_or_insert_with(|| parent.clone()) != parent {
            return Err(fail(format!("{shown:?}: expected all members in one folder of the tar")));
        }
        let Some(bytes) = file.bytes.part(bytes) else {
            return Err(fail(format!("{shown:?} ends beyond the tar (truncated?)")));
        };
        let path = file.path.join(name);
        if members.insert(name, Member { path, bytes }).is_some() {
            return Err(fail(format!("{shown:?}: twice in the tar")));
        }
    }
    match members.is_empty() {
        true => Err(fail(format!("an empty tar: expected {} in it", expected()))),
        false => Ok(members),
    }
}

fn expected() -> String {
    use super::members::{EMBEDDINGS, LORA, PARAMS, UNET};
    [LORA, UNET, EMBEDDINGS, PARAMS].join(", ")
}

fn entries(file: &Member) -> Result<Vec<Entry>, AdapterError> {
    let broken = |e: std::io::Error| {
        AdapterError::file(&file.path, format!("not a readable tar: {}", shorten(&e.to_string())))
    };
    let mut found = Vec::new();
    let mut end = 0;
    let mut archive = tar::Archive::new(Cursor::new(&*file.bytes));
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let (start, size) = (entry.raw_file_position() as usize, entry.size() as usize);
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        end = start.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        let bytes = start..start.saturating_add(size);
        found.push(Entry { shown, kind: entry.header().entry_type(), bytes });
    }
    // A tar ends with zeros. Without them, members may have been cut off.
    if !file.bytes.get(end..end.saturating_add(BLOCK)).is_some_and(|block| block.iter().all(|b| *b == 0)) {
        return Err(AdapterError::file(&file.path, "the tar has no end (truncated?)"));
    }
    Ok(found)
}

/// The folder and the name of a path that stays inside the tar.
fn place(path: &str) -> Option<(PathBuf, String)> {
    let mut parts = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    let name = parts.file_name().unwrap_or_default().to_string_lossy().into_owned();
    parts.pop();
    Some((parts, name))
}

/// Whether a member is a file that macOS or Windows puts into folders and archives.
fn is_system_file(path: &str) -> bool {
    let parts = || path.split('/');
    let name = parts().next_back().unwrap_or_default();
    parts().any(|part| part == "__MACOSX")
        || name.starts_with("._")
        || [".DS_Store", "Thumbs.db", "desktop.ini"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects names: a name that leads out of the tar is not a member, and files that a Mac adds are recognized.
    #[test]
    fn names_in_a_tar() {
        let place = |path: &str| place(path).map(|(parent, name)| (parent.display().to_string(), name));
        assert_eq!(place("./a/b.json"), Some(("a".into(), "b.json".into())));
        assert_eq!(place("b.json"), Some((String::new(), "b.json".into())));
        for path in ["../b.json", "/b.json", "a/../b.json"] {
            assert_eq!(place(path), None, "{path}");
        }
        for path in ["._lora.safetensors", "a/._lora.safetensors", "__MACOSX/x", "a/.DS_Store", "Thumbs.db"] {
            assert!(is_system_file(path), "{path}");
        }
        assert!(!is_system_file("lora.safetensors") && !is_system_file("a/notes.txt"));
    }
}
