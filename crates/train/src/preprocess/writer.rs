//! Writes the set that is made: `NAME.png`, `NAME.mask.png` and `NAME.txt` of each picture, the index, the report and the contact
//! sheet. Files that the user has changed are not written.
//!
//! An interrupted run leaves files that are whole or not there, and an index that knows each: what is to be replaced is removed
//! first, then the index is written, then the files.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::earlier::{Earlier, Found, found, made};
use crate::dataset::index::{self, BESIDE, INDEX, Index, Made, Record};
use crate::dataset::{Dataset, DatasetError, Example};
use crate::files;

/// How long files wait to be written together, because each time the whole index is written.
const SELDOM: Duration = Duration::from_secs(2);

/// A made set that is being written.
pub struct Writer {
    folder: PathBuf,
    index: Index,
    /// Files to be written, with their contents; `None`: to be removed.
    pending: Vec<(String, Option<Vec<u8>>)>,
    flushed: Instant,
}

impl Writer {
    /// Begins to write into `folder`, which need not be there. What a preprocessing has made there already is known.
    ///
    /// # Errors
    /// The index is damaged, or the folder has a report or a contact sheet that no preprocessing has written.
    pub fn open(folder: &Path, seed: u64) -> Result<Writer, DatasetError> {
        let earlier = Earlier::open(folder)?;
        let in_the_way =
            BESIDE.iter().map(|name| folder.join(name)).find(|path| path.symlink_metadata().is_ok());
        if let (None, Some(path)) = (&earlier, in_the_way) {
            let problem = "is there already, and is not from a preprocessing: take another folder";
            return Err(made(&path, problem.into()));
        }
        let pictures = earlier.map(|earlier| earlier.index.pictures).unwrap_or_default();
        let index = Index { calotype: env!("CARGO_PKG_VERSION").into(), seed, pictures };
        Ok(Writer { folder: folder.into(), index, pending: Vec::new(), flushed: Instant::now() })
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
        record.picture = self.put(format!("{}.png", record.name), Some(picture), record.picture)?;
        let mask = example.mask.as_ref().map(|mask| png(mask, side, ExtendedColorType::L8));
        record.mask = self.put(format!("{}.mask.png", record.name), mask, record.mask)?;
        match self.index.pictures.iter_mut().find(|known| known.source == record.source) {
            Some(known) => *known = record,
            None => self.index.pictures.push(record),
        }
        self.flush_seldom()
    }

    /// Writes the caption of a picture whose square was written.
    pub(super) fn caption(&mut self, example: &Example, record: &Record) -> Result<(), DatasetError> {
        let text = format!("{}\n", example.caption).into_bytes();
        let made = self.put(format!("{}.txt", record.name), Some(text), record.caption.clone())?;
        if let Some(known) = self.index.pictures.iter_mut().find(|known| known.source == record.source) {
            known.caption = made;
            known.captioner.clone_from(&record.captioner);
            known.notes.clone_from(&record.notes);
        }
        self.flush_seldom()
    }

    /// Takes note of a file to be written or removed, if it is not the user's and not there already.
    fn put(&mut self, name: String, content: Option<Vec<u8>>, file: Made) -> Result<Made, DatasetError> {
        if file.by_hand {
            return Ok(file);
        }
        let checksum = content.as_deref().map(index::checksum).unwrap_or_default();
        match (found(&self.folder, &name, Some(&checksum))?, content) {
            (Found::Made, Some(_)) | (Found::Missing, None) => {}
            (_, content) => self.pending.push((name, content)),
        }
        Ok(Made { checksum, ..file })
    }

    fn flush_seldom(&mut self) -> Result<(), DatasetError> {
        if self.flushed.elapsed() < SELDOM { Ok(()) } else { self.flush() }
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn flush(&mut self) -> Result<(), DatasetError> {
        for (name, _) in &self.pending {
            remove(&self.folder.join(name))?;
        }
        if !self.pending.is_empty() {
            self.write_index()?;
        }
        for (name, content) in std::mem::take(&mut self.pending) {
            if let Some(content) = content {
                write(&self.folder.join(name), &content)?;
            }
        }
        self.flushed = Instant::now();
        Ok(())
    }

    fn write_index(&self) -> Result<(), DatasetError> {
        let path = self.folder.join(INDEX);
        let json = serde_json::to_string_pretty(&self.index).map_err(|e| made(&path, e.to_string()))?;
        write(&path, format!("{json}\n").as_bytes())
    }

    /// Writes all files of a set at once.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_all(mut self, set: &Dataset) -> Result<(), DatasetError> {
        for (example, record) in set.examples.iter().zip(&set.records) {
            self.square(example, record)?;
            self.caption(example, record)?;
        }
        self.finish(set).map(drop)
    }

    /// Ends the set: removes what was made of pictures that are gone, and writes the index, the report and the contact sheet.
    /// Returns the files of pictures that are gone which stay, because the user has changed them.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn finish(mut self, set: &Dataset) -> Result<Vec<String>, DatasetError> {
        self.flush()?;
        let place = |record: &Record| set.records.iter().position(|known| known.source == record.source);
        let mut kept = Vec::new();
        for record in self.index.pictures.iter().filter(|record| place(record).is_none()) {
            let files = [("png", &record.picture), ("mask.png", &record.mask), ("txt", &record.caption)];
            for (ending, file) in files {
                let name = format!("{}.{ending}", record.name);
                match found(&self.folder, &name, Some(&file.checksum))? {
                    Found::Missing => {}
                    Found::Made => remove(&self.folder.join(&name))?,
                    Found::ByHand => kept.push(name),
                }
            }
        }
        self.index.pictures.retain(|record| place(record).is_some());
        self.index.pictures.sort_by_key(place);
        self.write_index()?;
        write(&self.folder.join(BESIDE[0]), set.report().as_bytes())?;
        write(&self.folder.join(BESIDE[1]), &set.contact_sheet())?;
        files::sweep(&self.folder);
        Ok(kept)
    }
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

fn png(pixels: &[u8], side: u32, colour: ExtendedColorType) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    PngEncoder::new(&mut file)
        .write_image(pixels, side, side, colour)
        .expect("a square in memory is written as a PNG");
    file.into_inner()
}
