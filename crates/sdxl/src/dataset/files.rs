//! A set's files, sorted by what they are for.

use std::collections::{BTreeMap, HashSet};

use super::archive::Entry;
use super::captions::Sources;
use super::error::list;
use super::kind::{Kind, stem};

/// A set's files.
#[derive(Default)]
pub(super) struct Files {
    /// The pictures, by path.
    pub pictures: Vec<Entry>,
    /// Masks, by the stem that they share with their pictures.
    pub masks: BTreeMap<String, Entry>,
    /// Files with captions.
    pub sources: Sources,
}

impl Files {
    /// Sorts the files of a set, and warns about those that belong to no picture.
    pub(super) fn sort(entries: Vec<Entry>, warnings: &mut Vec<String>) -> Files {
        let pictures = entries.iter().filter(|e| e.kind == Kind::Picture);
        let stems: HashSet<String> = pictures.map(|e| stem(&e.name).to_owned()).collect();
        let mut files = Files::default();
        let (mut unknown, mut lone_masks) = (Vec::new(), Vec::new());
        for entry in entries {
            let stem = stem(&entry.name).to_owned();
            let has_picture = stems.contains(&stem);
            // A second of the same stem differs in its extension's letter case alone; the first is used.
            match entry.kind {
                Kind::Picture => files.pictures.push(entry),
                Kind::Table => files.sources.tables.push(entry),
                Kind::Mask if !has_picture => lone_masks.push(entry.name),
                Kind::Mask if !files.masks.contains_key(&stem) => {
                    files.masks.insert(stem, entry);
                }
                Kind::Text if has_picture && !files.sources.texts.contains_key(&stem) => {
                    files.sources.texts.insert(stem, entry);
                }
                Kind::Mask | Kind::Text | Kind::Other => unknown.push(entry.name),
            }
        }
        let mut warn = |what: &str, names: &[String]| {
            if !names.is_empty() {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                warnings.push(format!("{what}: {}", list(&names)));
            }
        };
        warn("masks without a picture", &lone_masks);
        warn("files that are not used", &unknown);
        files
    }
}
