//! Sets in a folder.

use std::path::{Path, PathBuf};

use super::{Entry, Place};
use crate::dataset::DatasetError;
use crate::dataset::kind::FileKind;
use calotype_models::shorten;

/// The most nested folders. More are a mistake or a broken disk.
const MAX_DEPTH: usize = 64;

/// The content of a folder.
pub(super) struct Found {
    pub entries: Vec<Entry>,
    /// The size of all files, in bytes.
    pub bytes: u64,
    /// Links that lead out of the folder.
    pub links: Vec<String>,
    /// The folder's path, with links resolved.
    root: PathBuf,
}

/// Lists the files under `root`, which may itself be a link. Links to files inside the folder are followed. Links that lead out
/// of it are not, because a set may come from somebody else. Links to folders are not, because they may form a cycle.
pub(super) fn list(root: &Path) -> Result<Found, DatasetError> {
    let real = root.canonicalize().map_err(|e| DatasetError::open(root, shorten(&e.to_string())))?;
    let mut found = Found { entries: Vec::new(), bytes: 0, links: Vec::new(), root: real };
    walk(root, "", MAX_DEPTH, &mut found)?;
    found.links.sort();
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Found) -> Result<(), DatasetError> {
    let io = |e: std::io::Error| DatasetError::open(folder, shorten(&e.to_string()));
    for item in std::fs::read_dir(folder).map_err(io)? {
        let item = item.map_err(io)?;
        let path = item.path();
        let name = format!("{prefix}{}", item.file_name().to_string_lossy());
        let Some(kind) = FileKind::of(&name) else { continue };
        let file_type = item.file_type().map_err(io)?;
        if file_type.is_dir() {
            let depth = depth.checked_sub(1).ok_or_else(|| DatasetError::open(&path, "folders too deep"))?;
            walk(&path, &format!("{name}/"), depth, found)?;
            continue;
        }
        let io = |e: std::io::Error| {
            DatasetError::open(&path, format!("cannot be read: {}", shorten(&e.to_string())))
        };
        let metadata = std::fs::metadata(&path).map_err(io)?;
        if file_type.is_symlink() && !path.canonicalize().map_err(io)?.starts_with(&found.root) {
            found.links.push(name);
            continue;
        }
        if metadata.is_dir() {
            continue;
        }
        let kind = if metadata.is_file() { kind } else { FileKind::Other };
        found.bytes += metadata.len();
        found.entries.push(Entry { name, kind, place: Place::Path(path) });
    }
    Ok(())
}
