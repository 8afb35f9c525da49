//! The captions of pictures.

use std::collections::BTreeMap;

use super::archive::{Archive, Entry};
use super::error::{list, list_most};
use super::kind::{base, stem};
use super::text::{MAX_TEXT, one_line};
use super::{DatasetError, table};
use calotype_models::shorten;
use calotype_sdxl::text;

/// The most files that a message names, as many as someone would fix by hand.
const NAMED: usize = 50;
/// The most bytes of all pictures' text files together.
const MAX_TEXTS: usize = 64 << 20;

/// The files with captions.
#[derive(Default)]
pub(super) struct Sources {
    /// Tables of captions for all pictures.
    pub tables: Vec<Entry>,
    /// The text file of a picture, by stem.
    texts: BTreeMap<String, Entry>,
}

impl Sources {
    /// Adds the text file of a picture. If the picture has two, returns the one that is not used: `.txt` is preferred to
    /// `.caption`.
    pub(super) fn add(&mut self, stem: String, text: Entry) -> Option<Entry> {
        let is_txt = |entry: &Entry| entry.name.to_ascii_lowercase().ends_with(".txt");
        match self.texts.get(&stem) {
            Some(first) if is_txt(first) || !is_txt(&text) => Some(text),
            _ => self.texts.insert(stem, text),
        }
    }

    /// The text file of each picture, if it has one.
    fn texts_of<'a>(&'a self, pictures: &[&str]) -> impl Iterator<Item = Option<&'a Entry>> {
        pictures.iter().map(|picture| self.texts.get(&stem(picture)))
    }
}

/// The caption of each of `pictures` (paths). `None`: the set has none for it. A text file that is there and empty is an empty caption.
/// A table comes before text files.
pub(super) fn assign(
    archive: &mut Archive,
    sources: &Sources,
    pictures: &[&str],
    warnings: &mut Vec<String>,
) -> Result<Vec<Option<String>>, DatasetError> {
    let Some((table, content)) = table(archive, sources, pictures, warnings)? else {
        return sidecars(archive, sources.texts_of(pictures));
    };
    let captions = table::captions(&table.name, &content, pictures)?;
    let has_row = |i: usize| captions[i].is_some();
    let texts: Vec<Option<&Entry>> = sources.texts_of(pictures).collect();
    let unused = texts.iter().enumerate().filter(|(i, _)| has_row(*i)).filter_map(|(_, text)| *text);
    warn_unused(&unused.map(|text| text.name.as_str()).collect::<Vec<_>>(), &table.name, warnings);
    let texts = texts.into_iter().enumerate().map(|(i, text)| text.filter(|_| !has_row(i)));
    let texts = sidecars(archive, texts)?;
    let captions: Vec<_> = captions.into_iter().zip(texts).map(|(row, text)| row.or(text)).collect();
    let without = pictures.iter().zip(&captions).filter(|(_, caption)| caption.is_none());
    let without: Vec<&str> = without.map(|(picture, _)| *picture).collect();
    if !without.is_empty() {
        warnings.push(format!("{} has no caption for {}", shorten(&table.name), list_most(&without, NAMED)));
    }
    Ok(captions)
}

fn warn_unused(names: &[&str], table: &str, warnings: &mut Vec<String>) {
    if !names.is_empty() {
        warnings.push(format!("not used, since there is {}: {}", shorten(table), list(names)));
    }
}

/// The table of captions, with its content. A table named `metadata` may be about something else. It is not used if it lacks
/// captions, if every picture has a text file, or if another table is named after captions.
fn table<'a>(
    archive: &mut Archive,
    sources: &'a Sources,
    pictures: &[&str],
    warnings: &mut Vec<String>,
) -> Result<Option<(&'a Entry, String)>, DatasetError> {
    let is_metadata = |table: &Entry| base(&table.name).to_ascii_lowercase().starts_with("metadata.");
    let named = sources.tables.iter().filter(|table| !is_metadata(table)).count();
    let needless = named > 0 || sources.texts_of(pictures).all(|text| text.is_some());
    let (mut tables, mut unused) = (Vec::new(), Vec::new());
    for table in &sources.tables {
        if is_metadata(table) && needless {
            unused.push(table.name.as_str());
            continue;
        }
        let bytes = archive.read(table, MAX_TEXT)?;
        match text::decode(&bytes) {
            Ok(content) if !is_metadata(table) || table::has_captions(&table.name, &content) => {
                tables.push((table, content));
            }
            Err(at) if !is_metadata(table) => {
                return Err(DatasetError::caption(&table.name, text::problem(at)));
            }
            _ => unused.push(table.name.as_str()),
        }
    }
    if !unused.is_empty() {
        warnings.push(format!("files that are not used: {}", list(&unused)));
    }
    if let [(first, _), (second, _), ..] = tables.as_slice() {
        let problem = format!("expected one table of captions, found {} as well", shorten(&second.name));
        return Err(DatasetError::caption(&first.name, problem));
    }
    Ok(tables.pop())
}

/// Reads the text files of pictures, of those that have one. If the encoding of some is not supported, the error names them.
fn sidecars<'a>(
    archive: &mut Archive,
    texts: impl Iterator<Item = Option<&'a Entry>>,
) -> Result<Vec<Option<String>>, DatasetError> {
    let (mut captions, mut wrong, mut total) = (Vec::new(), Vec::new(), 0);
    for text in texts {
        let Some(text) = text else {
            captions.push(None);
            continue;
        };
        match text::decode(&archive.read(text, MAX_TEXT)?) {
            Ok(content) => {
                let caption = one_line(&content);
                total += caption.len();
                captions.push(Some(caption));
            }
            Err(at) => wrong.push((text.name.as_str(), at)),
        }
        if total > MAX_TEXTS {
            let problem = format!("expected captions of at most {MAX_TEXTS} bytes together, found more");
            return Err(DatasetError::caption(&text.name, problem));
        }
    }
    match wrong.as_slice() {
        [] => Ok(captions),
        [(name, at)] => Err(DatasetError::caption(name, text::problem(*at))),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            let problem = "expected UTF-8, found another encoding in each of them".to_owned();
            Err(DatasetError::Caption { file: list_most(&names, NAMED), problem })
        }
    }
}
