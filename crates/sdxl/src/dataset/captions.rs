//! What each picture shows, in words.

use std::collections::BTreeMap;

use super::archive::Entry;
use super::error::list;
use super::kind::stem;
use super::{DatasetError, table};
use crate::config::shorten;

/// The files that captions come from.
#[derive(Default)]
pub(super) struct Sources {
    /// Tables of all captions.
    pub tables: Vec<Entry>,
    /// The text of a picture, by stem.
    pub texts: BTreeMap<String, Entry>,
}

/// The caption of each of `pictures` (paths): of the table if there is one, which must have them all; else of the text beside
/// the picture, and where there is none, `prefix`.
pub(super) fn assign(
    sources: &Sources,
    pictures: &[&str],
    prefix: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, DatasetError> {
    let mut captions = match sources.tables.as_slice() {
        [] => sidecars(sources, pictures)?,
        [table] => {
            let unused: Vec<&str> =
                sidecars_of(sources, pictures).flatten().map(|text| text.name.as_str()).collect();
            if !unused.is_empty() {
                warnings.push(format!(
                    "not used, since there is {}: {}",
                    shorten(&table.name),
                    list(&unused)
                ));
            }
            table::captions(table, pictures)?
        }
        [first, second, ..] => {
            let problem = format!("expected one CSV of captions, found {} as well", shorten(&second.name));
            return Err(DatasetError::caption(&first.name, problem));
        }
    };
    // Without the comma that would go on to the rest of the caption.
    let alone = one_line(prefix).trim_end_matches([',', ' ']).to_owned();
    let empty: Vec<usize> = (0..captions.len()).filter(|&i| captions[i].is_empty()).collect();
    if !empty.is_empty() && empty.len() < captions.len() {
        let names: Vec<&str> = empty.iter().map(|&i| pictures[i]).collect();
        warnings.push(format!("no caption for {}: \"{alone}\" is used", list(&names)));
    }
    for i in empty {
        captions[i].clone_from(&alone);
    }
    Ok(captions)
}

/// The text beside each picture, where there is one.
fn sidecars_of<'a>(sources: &'a Sources, pictures: &[&str]) -> impl Iterator<Item = Option<&'a Entry>> {
    pictures.iter().map(|picture| sources.texts.get(stem(picture)))
}

fn sidecars(sources: &Sources, pictures: &[&str]) -> Result<Vec<String>, DatasetError> {
    let text = |text: Option<&Entry>| text.map_or(Ok(String::new()), |text| Ok(one_line(utf8(text)?)));
    sidecars_of(sources, pictures).map(text).collect()
}

/// A file's text, without a byte order mark.
pub(super) fn utf8(file: &Entry) -> Result<&str, DatasetError> {
    let text = std::str::from_utf8(&file.bytes).map_err(|e| {
        DatasetError::caption(
            &file.name,
            format!("expected UTF-8, found another encoding at byte {}", e.valid_up_to()),
        )
    })?;
    Ok(text.trim_start_matches('\u{feff}'))
}

/// A caption in one line: runs of white space and control characters are one space, none at the ends.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}
