//! The sources of trained weights: a tar, a folder, or a single safetensors file. They are told apart by their content, not by
//! their names.

use std::path::{Path, PathBuf};

use calotype_tensor::io::open_weights;

use super::AdapterError;
use super::members::{LAYOUTS, Layout, Member, Members};
use super::stored::Region;
use super::untar;

/// The files that a training leaves in its run's folder.
const RESULT: &str = "trained_model.tar";
const CHECKPOINTS: &str = "checkpoints";

/// An opened source, of which nothing has been read yet.
pub(super) enum Source {
    /// Several files of one layout.
    Several(Layout, Members),
    /// A single safetensors file.
    Single(Member),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, AdapterError> {
        if path.is_dir() {
            return folder(path);
        }
        let member = mapped(path)?;
        if member.bytes.get(257..262) == Some(b"ustar") {
            let members = untar::members(&member)?;
            let layout = layout(path, members.keys().copied())?;
            return Ok(Self::Several(layout, members));
        }
        Ok(Self::Single(member))
    }
}

/// The files that [`TrainedWeights::read`](super::TrainedWeights::read) reads at `path`, judged by their names: the path
/// itself, or for a folder, the files of its layout, a run's result, or the only safetensors file.
pub fn files_read(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_path_buf()];
    }
    let names = LAYOUTS.iter().flat_map(|(_, names)| *names);
    let of_layout: Vec<PathBuf> = names.map(|name| path.join(name)).filter(|file| file.exists()).collect();
    let result = path.join(RESULT);
    match listed(path, &["safetensors"]).as_slice() {
        _ if !of_layout.is_empty() => of_layout,
        _ if result.exists() => files_read(&result),
        [one] => vec![path.join(one)],
        _ => Vec::new(),
    }
}

/// Every file whose change may change the weights at a path.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_path_buf()] };
    let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    inside.sort();
    inside.push(path.to_path_buf());
    inside
}

fn mapped(path: &Path) -> Result<Member, AdapterError> {
    let found = std::fs::metadata(path).map_err(|e| AdapterError::file(path, e))?;
    // Opening a pipe would block.
    if !found.is_file() {
        let kind = if found.is_dir() { "a folder" } else { "a pipe or a device" };
        return Err(AdapterError::file(path, format!("expected a file, found {kind}")));
    }
    let map = open_weights(path).map_err(|e| AdapterError::file(path, e))?;
    Ok(Member { path: path.into(), bytes: Region::whole(map) })
}

/// The one layout that these names belong to.
fn layout(path: &Path, names: impl Iterator<Item = &'static str>) -> Result<Layout, AdapterError> {
    let names: Vec<_> = names.collect();
    let of = |(layout, known): &(Layout, &[&'static str])| {
        let name = names.iter().find(|name| known.contains(name))?;
        Some((*layout, *name))
    };
    match &LAYOUTS.iter().filter_map(of).collect::<Vec<_>>()[..] {
        [(layout, _)] => Ok(*layout),
        [] => Err(AdapterError::file(path, format!("no trained weights: expected {} in it", expected()))),
        [(_, a), (_, b), ..] => {
            let problem = format!("has {a} and {b}: expected the files of one training; name one of them");
            Err(AdapterError::file(path, problem))
        }
    }
}

fn expected() -> String {
    LAYOUTS[0].1.join(", ")
}

fn folder(path: &Path) -> Result<Source, AdapterError> {
    let names = LAYOUTS.iter().flat_map(|(_, names)| *names).copied();
    let there: Vec<&'static str> = names.filter(|name| path.join(name).exists()).collect();
    if there.is_empty() {
        return another_folder(path);
    }
    let layout = layout(path, there.iter().copied())?;
    let others: Vec<String> = listed(path, &["safetensors", "pti"])
        .into_iter()
        .filter(|name| !there.contains(&name.as_str()))
        .collect();
    if !others.is_empty() {
        tracing::warn!("{}: not used: {}", path.display(), calotype_models::shorten(&others.join(", ")));
    }
    let members = there.into_iter().map(|name| Ok((name, mapped(&path.join(name))?)));
    Ok(Source::Several(layout, members.collect::<Result<_, AdapterError>>()?))
}

/// A folder without the files of a layout: a run's folder means its result, another folder means its only
/// safetensors file.
fn another_folder(path: &Path) -> Result<Source, AdapterError> {
    let fail = |problem: String| Err(AdapterError::file(path, problem));
    if path.join(RESULT).exists() {
        return Source::open(&path.join(RESULT));
    }
    let steps = listed(&path.join(CHECKPOINTS), &[]);
    if let Some(last) = steps.iter().rfind(|name| name.starts_with("step-")) {
        return fail(format!(
            "a training that has not ended: expected {RESULT} in it; {CHECKPOINTS}/{last} has the weights of its last checkpoint"
        ));
    }
    let itself = listed(path, &[]);
    if let Some(last) = itself.iter().rfind(|name| name.starts_with("step-")) {
        return fail(format!("several checkpoints: name one of them, such as {}", path.join(last).display()));
    }
    if path.join("model_index.json").exists() {
        return fail("a whole model: expected trained weights; give the model by --model".into());
    }
    match &listed(path, &["safetensors"])[..] {
        [one] => Source::open(&path.join(one)),
        [] if !listed(path, &["bin", "pt", "ckpt"]).is_empty() => {
            fail("only PyTorch's pickled weights (.ckpt, .pt, .bin): expected safetensors".into())
        }
        [] => fail(format!("no trained weights: expected {} in it", expected())),
        many => fail(format!(
            "expected one safetensors file, found {}: name one of them",
            calotype_models::shorten(&many.join(", "))
        )),
    }
}

/// The names in a folder with one of these extensions (empty: all names), sorted.
fn listed(path: &Path, extensions: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let wanted = |name: &String| {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        !name.starts_with('.') && (extensions.is_empty() || extensions.contains(&extension))
    };
    let mut names: Vec<String> = names.filter(wanted).collect();
    names.sort();
    names
}
