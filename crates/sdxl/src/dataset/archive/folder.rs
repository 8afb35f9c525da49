//! Folders.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Entry;
use super::meter::Meter;
use crate::config::shorten;
use crate::dataset::DatasetError;
use crate::dataset::kind::Kind;

/// Folders inside of each other. More would be a mistake, or a disk gone wrong.
const MAX_DEPTH: usize = 64;

/// Reads the files under `root` that a training uses. Links to files are followed; links to folders are not, since they
/// may go round in circles.
pub(super) fn read(root: &Path, meter: &Meter) -> Result<Vec<Entry>, DatasetError> {
    let mut entries = Vec::new();
    walk(root, "", MAX_DEPTH, meter, &mut entries)?;
    Ok(entries)
}

fn walk(
    folder: &Path,
    prefix: &str,
    depth: usize,
    meter: &Meter,
    entries: &mut Vec<Entry>,
) -> Result<(), DatasetError> {
    let io = |e: std::io::Error| DatasetError::open(folder, shorten(&e.to_string()));
    for item in std::fs::read_dir(folder).map_err(io)? {
        let item = item.map_err(io)?;
        let path = item.path();
        let name = format!("{prefix}{}", item.file_name().to_string_lossy());
        let Some(kind) = Kind::of(&name) else { continue };
        if item.file_type().map_err(io)?.is_dir() {
            let depth = depth.checked_sub(1).ok_or_else(|| DatasetError::open(&path, "folders too deep"))?;
            walk(&path, &format!("{name}/"), depth, meter, entries)?;
            continue;
        }
        let io = |e: std::io::Error| meter.error(&path, "cannot be read", &e);
        let metadata = std::fs::metadata(&path).map_err(io)?;
        if metadata.is_dir() {
            continue;
        }
        let mut bytes = Vec::new();
        let kind = if metadata.is_file() { kind } else { Kind::Other };
        if kind != Kind::Other {
            meter.count(File::open(&path).map_err(io)?).read_to_end(&mut bytes).map_err(io)?;
        }
        entries.push(Entry { name, kind, bytes });
    }
    Ok(())
}
