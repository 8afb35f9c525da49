//! Writes the made set: `NAME.png`, `NAME.mask.png` and `NAME.txt` of each picture, the index, the report and the contact
//! sheet. Files that the user has changed are not written, also if that was during the run.
//!
//! An interrupted run leaves files that are whole or not there, and an index that knows each: what is to be replaced is removed
//! first, then the index is written, then the files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::earlier::{Earlier, Found, found, unusable_file};
use super::job::{CAPTION, MASK, PICTURE};
use super::lock::Lock;
use crate::dataset::index::{self, BESIDE, INDEX, Index, MadeFile, Record};
use crate::dataset::{Dataset, DatasetError, Example};
use crate::files;

/// How long files wait to be written together, because each time the whole index is written.
const SELDOM: Duration = Duration::from_secs(2);

/// A made set that is being written, by one process at a time.
pub struct Writer {
    folder: PathBuf,
    index: Index,
    /// The checksums of the files that are there as a preprocessing has written them, by their names.
    written: HashMap<String, String>,
    /// Files to be written, with their contents; `None`: to be removed.
    pending: Vec<(String, Option<Vec<u8>>)>,
    untouched: Untouched,
    flushed: Instant,
    _lock: Lock,
}

/// Files of the folder that stay as they are, because they are the user's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Untouched {
    /// Files of pictures that are gone, which the user has changed.
    pub gone: Vec<String>,
    /// Files that the user has written or changed during the run.
    pub meanwhile: Vec<String>,
    /// Pictures that no preprocessing has made: a training on the set learns from them too.
    pub others: Vec<String>,
}

impl Untouched {
    /// A line for each file, with its path.
    pub fn lines(&self, folder: &Path) -> Vec<String> {
        let kinds = [
            (&self.gone, "stays, as it was changed by hand, though its picture is gone"),
            (
                &self.meanwhile,
                "stays, as it was changed by hand during the run: it counts from the next run on",
            ),
            (
                &self.others,
                "stays, and a training on the set learns from it too, though it was not made from these pictures",
            ),
        ];
        let line = |file: &String, why: &str| format!("{}: {why}", folder.join(file).display());
        kinds.iter().flat_map(|(files, why)| files.iter().map(move |file| line(file, why))).collect()
    }
}

impl Writer {
    /// Begins to write into `folder`, which need not be there. What a preprocessing has made there already is known.
    ///
    /// # Errors
    /// Another process writes into the folder, the index is damaged, or the folder has pictures, a report or a contact sheet and no
    /// preprocessing has made a set in it.
    pub fn open(folder: &Path, seed: u64) -> Result<Writer, DatasetError> {
        let lock = Lock::take(folder)?;
        let earlier = Earlier::open(folder)?;
        let pictures = earlier.as_ref().map(|earlier| &*earlier.index.pictures).unwrap_or_default();
        let others = index::other_pictures(folder, pictures);
        let in_the_way = BESIDE.map(String::from).into_iter().chain(others.first().cloned());
        let mut in_the_way = in_the_way.map(|name| folder.join(name));
        if let (None, Some(path)) = (&earlier, in_the_way.find(|path| path.symlink_metadata().is_ok())) {
            let problem = "is there already, and was not made from this set: take another folder";
            return Err(unusable_file(&path, problem.into()));
        }
        let written = pictures.iter().flat_map(files_of);
        let written = written.map(|(name, file)| (name, file.checksum.clone())).collect();
        let pictures = earlier.map(|earlier| earlier.index.pictures).unwrap_or_default();
        Ok(Writer {
            folder: folder.into(),
            index: Index { calotype: env!("CARGO_PKG_VERSION").into(), seed, pictures },
            written,
            pending: Vec::new(),
            untouched: Untouched { others, ..Untouched::default() },
            flushed: Instant::now(),
            _lock: lock,
        })
    }

    /// The seed of the preprocessing that has made the set in `folder`, if there is one.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn seed(folder: &Path) -> Result<Option<u64>, DatasetError> {
        Ok(Earlier::open(folder)?.map(|earlier| earlier.index.seed))
    }

    /// Writes the square and the mask of a picture.
    pub(super) fn square(&mut self, example: &Example, record: &Record) -> Result<(), DatasetError> {
        let mut record = record.clone();
        let side = (example.rgb.len() / 3).isqrt() as u32;
        let picture = png(&example.rgb, side, ExtendedColorType::Rgb8);
        record.picture = self.put(format!("{}.{PICTURE}", record.name), Some(picture), record.picture)?;
        let mask = example.mask.as_ref().map(|mask| png(mask, side, ExtendedColorType::L8));
        record.mask = self.put(format!("{}.{MASK}", record.name), mask, record.mask)?;
        match self.index.pictures.iter_mut().find(|known| known.name == record.name) {
            Some(known) => *known = record,
            None => self.index.pictures.push(record),
        }
        self.flush_seldom()
    }

    /// Writes the caption of a picture whose square was written.
    pub(super) fn caption(&mut self, example: &Example, record: &Record) -> Result<(), DatasetError> {
        let text = format!("{}\n", example.caption).into_bytes();
        let file = self.put(format!("{}.{CAPTION}", record.name), Some(text), record.caption.clone())?;
        if let Some(known) = self.index.pictures.iter_mut().find(|known| known.name == record.name) {
            known.caption = file;
            known.captioner.clone_from(&record.captioner);
            known.notes.clone_from(&record.notes);
        }
        self.flush_seldom()
    }

    /// Takes note of a file to be written or removed, if it is not the user's and not there already.
    fn put(
        &mut self,
        name: String,
        content: Option<Vec<u8>>,
        file: MadeFile,
    ) -> Result<MadeFile, DatasetError> {
        if file.by_hand {
            return Ok(file);
        }
        let checksum = content.as_deref().map(index::checksum).unwrap_or_default();
        match (found(&self.folder, &name, Some(&checksum))?, content) {
            (Found::AsWritten, Some(_)) => drop(self.written.insert(name, checksum.clone())),
            (Found::Missing, None) => {}
            (_, content) => self.pending.push((name, content)),
        }
        Ok(MadeFile { checksum, ..file })
    }

    fn flush_seldom(&mut self) -> Result<(), DatasetError> {
        if self.flushed.elapsed() < SELDOM { Ok(()) } else { self.flush() }
    }

    /// Writes all that waits, but for files that the user has changed meanwhile.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn flush(&mut self) -> Result<(), DatasetError> {
        let mut cleared = Vec::new();
        for (name, content) in std::mem::take(&mut self.pending) {
            match self.clear(&name)? {
                true => cleared.push((name, content)),
                false => self.untouched.meanwhile.push(name),
            }
        }
        if !cleared.is_empty() {
            self.write_index()?;
        }
        for (name, content) in cleared {
            let Some(content) = content else { continue };
            match write_new(&self.folder.join(&name), &content)? {
                true => drop(self.written.insert(name, index::checksum(&content))),
                false => self.untouched.meanwhile.push(name),
            }
        }
        self.flushed = Instant::now();
        Ok(())
    }

    /// Removes a file that is as it was written, if it is there. `false`: it is the user's, and stays.
    fn clear(&mut self, name: &str) -> Result<bool, DatasetError> {
        match found(&self.folder, name, self.written.get(name).map(String::as_str))? {
            Found::Missing => Ok(true),
            Found::ByHand(_) => Ok(false),
            Found::AsWritten => {
                self.written.remove(name);
                remove(&self.folder.join(name)).map(|()| true)
            }
        }
    }

    fn write_index(&self) -> Result<(), DatasetError> {
        let path = self.folder.join(INDEX);
        let json =
            serde_json::to_string_pretty(&self.index).map_err(|e| unusable_file(&path, e.to_string()))?;
        write(&path, format!("{json}\n").as_bytes())
    }

    /// Ends the set: removes what was made of pictures that are gone, and writes the index, the report and the contact sheet.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn finish(mut self, set: &Dataset) -> Result<Untouched, DatasetError> {
        self.flush()?;
        let places: HashMap<&str, usize> =
            set.records.iter().enumerate().map(|(place, record)| (record.name.as_str(), place)).collect();
        let in_use: HashSet<String> = set.records.iter().flat_map(files_of).map(|(name, _)| name).collect();
        let (here, gone): (Vec<Record>, Vec<Record>) = std::mem::take(&mut self.index.pictures)
            .into_iter()
            .partition(|record| places.contains_key(record.name.as_str()));
        for (name, _) in gone.iter().flat_map(files_of).filter(|(name, _)| !in_use.contains(name)) {
            if !self.clear(&name)? {
                self.untouched.gone.push(name);
            }
        }
        self.index.pictures = here;
        self.index.pictures.sort_by_key(|record| places[record.name.as_str()]);
        self.write_index()?;
        write(&self.folder.join(BESIDE[0]), set.report().as_bytes())?;
        write(&self.folder.join(BESIDE[1]), &set.contact_sheet())?;
        files::sweep(&self.folder);
        Ok(self.untouched)
    }
}

/// The names of the files of a picture, with what is known of each.
fn files_of(record: &Record) -> [(String, &MadeFile); 3] {
    let files = [(PICTURE, &record.picture), (MASK, &record.mask), (CAPTION, &record.caption)];
    files.map(|(ending, file)| (format!("{}.{ending}", record.name), file))
}

/// Removes a file that may be there.
fn remove(path: &Path) -> Result<(), DatasetError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DatasetError::Io { path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a file, whole or not at all, and makes the folders above it.
fn write(path: &Path, content: &[u8]) -> Result<(), DatasetError> {
    let io = |source: std::io::Error| DatasetError::Io { path: path.into(), source };
    fs::create_dir_all(files::parent(path)).map_err(io)?;
    files::write_file(path, |to| to.write_all(content)).map_err(io)
}

/// The same, unless there is a file already: `false`.
fn write_new(path: &Path, content: &[u8]) -> Result<bool, DatasetError> {
    let io = |source: std::io::Error| DatasetError::Io { path: path.into(), source };
    fs::create_dir_all(files::parent(path)).map_err(io)?;
    files::write_new_file(path, |to| to.write_all(content)).map_err(io)
}

fn png(pixels: &[u8], side: u32, colour: ExtendedColorType) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    PngEncoder::new(&mut file)
        .write_image(pixels, side, side, colour)
        .expect("a square in memory is written as a PNG");
    file.into_inner()
}
