//! A run's folder in the storage, from which another machine goes on.
//!
//! ```text
//! trainings/{id}/checkpoints/000001-0003.json     attempt and number: the files of a checkpoint, with their sums
//! trainings/{id}/checkpoints/files/{SHA-256}      what is in them
//! ```
//!
//! The list is written after its files, so that a checkpoint is complete or not there. Files are named by what is in them: one that has not
//! changed is stored once, and an attempt that lost its lease overwrites nothing. The last two checkpoints stay.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::weights::sum;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Where a run has its own checkpoints, and what is in no checkpoint of ours: the result, and the file of its lock.
const STEPS: &str = "checkpoints";
const STEP: &str = "step-";
const SETTINGS: &str = "settings.json";
const METRICS: &str = "metrics.jsonl";
const RESULT: &str = "trained_model.tar";
/// How often a snapshot is tried again, while the run removes a checkpoint that was the newest.
const TRIES: usize = 5;
/// The checkpoints that stay.
const KEEP: usize = 2;

/// The checkpoints of a training, as one attempt writes them.
pub struct Checkpoints {
    prefix: String,
    attempt: i64,
    storage: Storage,
    /// The number of this attempt's last checkpoint.
    number: usize,
    /// The files that are in the storage, by their sums.
    stored: HashSet<String>,
    /// The checkpoints that this attempt has restored or written, and not removed, the oldest first.
    lists: Vec<(String, List)>,
}

/// The files of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct List {
    files: Vec<Entry>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Within the run's folder, with `/`.
    path: String,
    sha256: String,
}

impl Checkpoints {
    pub fn new(id: &str, attempt: i64, storage: Storage) -> Checkpoints {
        let (stored, lists) = Default::default();
        Checkpoints { prefix: prefix(id), attempt, storage, number: 0, stored, lists }
    }

    /// Stores the state of the run in `folder`: its newest checkpoint, and all else that a resumed run reads. Blocks until that is
    /// stored, or the job is `lost` to another worker.
    ///
    /// # Errors
    /// A file cannot be read or stored. The checkpoints before stay.
    pub fn store(
        &mut self,
        folder: &Path,
        handle: &Handle,
        lost: &CancellationToken,
    ) -> std::result::Result<(), String> {
        if !folder.join(SETTINGS).is_file() {
            return Ok(()); // the run has not begun
        }
        let snapshot = snapshot(folder).map_err(|e| e.to_string())?;
        let list = List::of(snapshot.path()).map_err(|e| e.to_string())?;
        if self.lists.last().is_some_and(|(_, last)| *last == list) {
            return Ok(());
        }
        handle.block_on(async {
            tokio::select! {
                stored = self.put(snapshot.path(), list) => stored.map_err(|e| e.to_string()),
                () = lost.cancelled() => Ok(()),
            }
        })
    }

    async fn put(&mut self, folder: &Path, list: List) -> Result<()> {
        for Entry { path, sha256 } in &list.files {
            if !self.stored.contains(sha256) {
                self.storage.put_file(&self.file(sha256), &folder.join(path)).await?;
                self.stored.insert(sha256.clone());
            }
        }
        self.number += 1;
        let key = format!("{}{:06}-{:04}.json", self.prefix, self.attempt, self.number);
        let json = serde_json::to_vec_pretty(&list).map_err(|e| Error::Storage(e.to_string()))?;
        self.storage.put(&key, Bytes::from(json)).await?;
        self.lists.push((key, list));
        self.remove_older().await
    }

    /// Removes all but the last checkpoints, and the files that are in no other.
    async fn remove_older(&mut self) -> Result<()> {
        let surplus = self.lists.len().saturating_sub(KEEP);
        let old: Vec<_> = self.lists.drain(..surplus).collect();
        let sums = |list: &List| list.files.iter().map(|file| file.sha256.clone()).collect::<Vec<_>>();
        let needed: HashSet<String> = self.lists.iter().flat_map(|(_, list)| sums(list)).collect();
        for (key, list) in old {
            // First the list: a list is never without its files.
            self.storage.delete(&key).await?;
            for sha256 in sums(&list) {
                if !needed.contains(&sha256) && self.stored.remove(&sha256) {
                    self.storage.delete(&self.file(&sha256)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether a key is that of a checkpoint's list. In the order of their keys, the newest is the last.
    fn is_list(&self, key: &str) -> bool {
        let name = key.strip_prefix(self.prefix.as_str());
        name.is_some_and(|name| name.ends_with(".json") && !name.contains('/'))
    }

    fn file(&self, sha256: &str) -> String {
        format!("{}files/{sha256}", self.prefix)
    }
}

/// Puts the files of the newest complete checkpoint of a training into `folder`, which is empty if there is none. Also gives what the
/// attempt's own checkpoints go on from.
///
/// # Errors
/// The storage does not answer, or a file cannot be written.
pub async fn restore(
    storage: &Storage,
    id: &str,
    attempt: i64,
    folder: &Path,
) -> Result<(bool, Checkpoints)> {
    let mut own = Checkpoints::new(id, attempt, storage.clone());
    let failed = |e: io::Error| Error::Storage(format!("{}: {e}", folder.display()));
    clear(folder).map_err(failed)?; // of an earlier try
    let keys = storage.list(&own.prefix).await?.into_iter().map(|(key, _)| key);
    let lists: Vec<String> = keys.filter(|key| own.is_list(key)).collect();
    for key in lists.into_iter().rev() {
        match fetch(&own, &key, folder).await? {
            Some(list) => {
                own.stored = list.files.iter().map(|file| file.sha256.clone()).collect();
                own.lists.push((key, list));
                return Ok((true, own));
            }
            None => {
                tracing::warn!("{key}: damaged, passed over");
                clear(folder).map_err(failed)?;
            }
        }
    }
    Ok((false, own))
}

/// Whether a training has a complete checkpoint.
///
/// # Errors
/// The storage does not answer.
pub async fn is_there(storage: &Storage, id: &str) -> Result<bool> {
    let own = Checkpoints::new(id, 0, storage.clone());
    let keys: HashSet<String> = storage.list(&own.prefix).await?.into_iter().map(|(key, _)| key).collect();
    for key in keys.iter().filter(|key| own.is_list(key)) {
        let Some(text) = storage.read(key).await? else { continue };
        let list: Option<List> = serde_json::from_slice(&text).ok();
        if list.is_some_and(|list| list.files.iter().all(|file| keys.contains(&own.file(&file.sha256)))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fetches the files of a list. `None`: a file is missing or damaged.
async fn fetch(own: &Checkpoints, key: &str, folder: &Path) -> Result<Option<List>> {
    let failed = |e: io::Error| Error::Storage(format!("{}: {e}", folder.display()));
    let Some(text) = own.storage.read(key).await? else { return Ok(None) };
    let list: Option<List> = serde_json::from_slice(&text).ok();
    let Some(list) = list else { return Ok(None) };
    for Entry { path, sha256 } in &list.files {
        let is_plain = |part: Component| matches!(part, Component::Normal(_));
        if !Path::new(path).components().all(is_plain) || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Ok(None);
        }
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
        if !own.storage.get_to(&own.file(sha256), &path).await? {
            return Ok(None);
        }
        let (file, expected) = (path.clone(), sha256.clone());
        let found = tokio::task::spawn_blocking(move || sum(&file)).await;
        if found.ok().and_then(|found| found.ok()) != Some(expected) {
            return Ok(None);
        }
    }
    Ok(Some(list))
}

/// Removes the checkpoints of a training that has its result.
pub async fn remove(storage: &Storage, id: &str) {
    if let Err(e) = storage.delete_prefix(&prefix(id)).await {
        tracing::warn!("{e}"); // retention finds them
    }
}

fn prefix(id: &str) -> String {
    format!("trainings/{id}/checkpoints/")
}

impl List {
    fn of(folder: &Path) -> io::Result<List> {
        let entry = |path: PathBuf| {
            let parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
            let name = parts.collect::<Vec<_>>().join("/");
            Ok::<_, io::Error>(Entry { path: name, sha256: sum(&folder.join(&path))? })
        };
        let mut files =
            files(folder, Path::new(""))?.into_iter().map(entry).collect::<io::Result<Vec<_>>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(List { files })
    }
}

/// The state of a run that goes on, beside its folder: other names of the same files, so that they stay when the run removes its own.
fn snapshot(folder: &Path) -> io::Result<tempfile::TempDir> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        let made =
            tempfile::Builder::new().prefix("snapshot-").tempdir_in(folder.parent().unwrap_or(folder))?;
        last = link(folder, made.path());
        match &last {
            Ok(()) => return Ok(made),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => break,
        }
    }
    Err(last.err().unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

fn link(folder: &Path, to: &Path) -> io::Result<()> {
    let newest = newest(&folder.join(STEPS))?;
    for path in files(folder, Path::new(""))? {
        let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        match parts.first().map(String::as_str) {
            Some(RESULT) if parts.len() == 1 => continue,
            Some(STEPS) if parts.get(1) != newest.as_ref() => continue,
            _ => {}
        }
        let target = to.join(&path);
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        // Lines are added to this file alone.
        match path == Path::new(METRICS) {
            true => fs::copy(folder.join(&path), target).map(drop)?,
            false => fs::hard_link(folder.join(&path), target)?,
        }
    }
    Ok(())
}

/// The name of the newest checkpoint. Those that are being written or removed have other names.
fn newest(folder: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let steps = names.filter_map(|name| Some((name.strip_prefix(STEP)?.parse::<u64>().ok()?, name)));
    Ok(steps.max().map(|(_, name)| name))
}

/// The files below `folder/part`, by their paths in `folder`. Names that begin with a dot are not complete, or locks.
fn files(folder: &Path, part: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder.join(part))? {
        let entry = entry?;
        let path = part.join(entry.file_name());
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => all.extend(files(folder, &path)?),
            false => all.push(path),
        }
    }
    Ok(all)
}

/// Removes what is in a folder.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// Protects checkpoints in the storage: they have the newest complete checkpoint of the run, its settings and its metrics, and nothing
    /// that is being written. A run that goes on changes nothing in them.
    #[test]
    fn a_snapshot_stays() {
        let here = tempfile::tempdir().expect("a folder");
        let run = here.path().join("run");
        for (name, text) in [
            ("settings.json", "{}"),
            ("metrics.jsonl", "1\n"),
            (".lock", ""),
            ("trained_model.tar", "late"),
            ("checkpoints/step-000002/state.json", "2"),
            ("checkpoints/step-000010/state.json", "10"),
            ("checkpoints/.step-000012.partial/state.json", "12"),
            ("preprocessed/0.png", "png"),
        ] {
            write(&run, name, text);
        }
        let snapshot = snapshot(&run).expect("made");
        fs::remove_dir_all(run.join("checkpoints/step-000010")).expect("removed");
        fs::OpenOptions::new()
            .append(true)
            .open(run.join("metrics.jsonl"))
            .and_then(|mut file| io::Write::write_all(&mut file, b"2\n"))
            .expect("appended");
        let list = List::of(snapshot.path()).expect("read");
        let names: Vec<&str> = list.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            names,
            ["checkpoints/step-000010/state.json", "metrics.jsonl", "preprocessed/0.png", "settings.json"]
        );
        let text = |name: &str| fs::read_to_string(snapshot.path().join(name)).expect("there");
        assert_eq!((text(names[0]), text("metrics.jsonl")), ("10".into(), "1\n".into()));
    }
}
