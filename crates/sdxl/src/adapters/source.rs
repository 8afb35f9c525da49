//! Where trained weights come from: a tar, a folder with a tar's files, or a single safetensors file. Told apart by what
//! is in them, not by their names.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Component, Path, PathBuf};

use calotype_tensor::cpu::Mmap;

use super::AdapterError;
use super::stored::Region;

/// The files of a trained model: the first two have the LoRA or the UNet, the others the tokens.
pub(super) const LORA: &str = "lora.safetensors";
pub(super) const UNET: &str = "unet.safetensors";
pub(super) const EMBEDDINGS: &str = "embeddings.pti";
pub(super) const PARAMS: &str = "special_params.json";
pub(super) const MEMBERS: [&str; 4] = [LORA, UNET, EMBEDDINGS, PARAMS];

/// tar's unit.
const BLOCK: usize = 512;

/// A file's bytes, and what to call it in errors.
pub(super) struct Member {
    pub path: PathBuf,
    pub bytes: Region,
}

/// Opened, and nothing read yet.
pub(super) enum Source {
    /// By name, of [`MEMBERS`].
    Trained(BTreeMap<&'static str, Member>),
    /// A safetensors file by itself.
    Single(Member),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, AdapterError> {
        if path.is_dir() {
            return folder(path);
        }
        let member = mapped(path)?;
        let start = &member.bytes[..member.bytes.len().min(BLOCK)];
        match start {
            _ if start.get(257..262) == Some(b"ustar") => tar(member),
            [0x1f, 0x8b, ..] => Err(AdapterError::file(path, "compressed (gzip): expected the plain tar")),
            [b'P', b'K', 3, 4, ..] => {
                Err(AdapterError::file(path, "a zip or pickle file: expected a tar or safetensors file"))
            }
            [] => Err(AdapterError::file(path, "empty: expected a tar or safetensors file")),
            _ => Ok(Self::Single(member)),
        }
    }
}

fn mapped(path: &Path) -> Result<Member, AdapterError> {
    let map = Mmap::open(path).map_err(|e| AdapterError::file(path, e))?;
    Ok(Member { path: path.into(), bytes: Region::whole(map) })
}

/// What else is in the folder is none of ours.
fn folder(path: &Path) -> Result<Source, AdapterError> {
    let there = MEMBERS.into_iter().filter(|name| path.join(name).exists());
    let members = there.map(|name| Ok((name, mapped(&path.join(name))?)));
    let members: BTreeMap<_, _> = members.collect::<Result<_, AdapterError>>()?;
    if members.is_empty() {
        return Err(AdapterError::file(
            path,
            format!("no trained weights: expected {} in it", MEMBERS.join(", ")),
        ));
    }
    Ok(Source::Trained(members))
}

fn tar(file: Member) -> Result<Source, AdapterError> {
    let fail = |problem: String| AdapterError::file(&file.path, problem);
    let broken = |e: std::io::Error| fail(format!("not a readable tar: {e}"));
    let mut members = BTreeMap::new();
    let mut end = 0;
    let mut archive = tar::Archive::new(Cursor::new(&*file.bytes));
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let (start, size) = (entry.raw_file_position() as usize, entry.size() as usize);
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        end = start.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        if kind.is_dir() && Path::new(&shown).components().all(|c| c == Component::CurDir) {
            continue;
        }
        let Some(name) = known(&shown) else {
            let members = MEMBERS.join(", ");
            return Err(fail(format!("{shown:?}: expected no other members than {members}")));
        };
        if !kind.is_file() {
            return Err(fail(format!("{shown:?}: expected a file, found a member of another kind")));
        }
        let range = start..start.saturating_add(size);
        let Some(bytes) = file.bytes.part(range) else {
            return Err(fail(format!("{shown:?} ends beyond the tar (truncated?)")));
        };
        let path = file.path.join(name);
        if members.insert(name, Member { path, bytes }).is_some() {
            return Err(fail(format!("{shown:?}: twice in the tar")));
        }
    }
    // A tar ends with zeros: without them, members may have been cut off.
    if !file.bytes.get(end..end.saturating_add(BLOCK)).is_some_and(|block| block.iter().all(|b| *b == 0)) {
        return Err(fail("the tar has no end (truncated?)".into()));
    }
    match members.is_empty() {
        true => Err(fail(format!("an empty tar: expected {} in it", MEMBERS.join(", ")))),
        false => Ok(Source::Trained(members)),
    }
}

/// The member that a path in a tar is, at its root.
fn known(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix("./").unwrap_or(path);
    MEMBERS.into_iter().find(|member| *member == name)
}
