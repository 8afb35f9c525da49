//! Sorts a set's files by their use.

use std::collections::{BTreeMap, HashSet};

use super::archive::Entry;
use super::captions::Sources;
use super::error::list;
use super::kind::{FileKind, base, masked, stem};
use super::layout;

/// A set's files.
#[derive(Default)]
pub(super) struct Files {
    /// The pictures, by path.
    pub pictures: Vec<Entry>,
    /// Masks, by the stems of their pictures.
    pub masks: BTreeMap<String, Entry>,
    /// Files with captions.
    pub sources: Sources,
    /// The reason why there are no pictures, if there are none.
    pub reason: Option<String>,
}

/// Names of files to warn about.
#[derive(Default)]
struct Unused {
    lone_masks: Vec<String>,
    unread: Vec<String>,
    regularisation: Vec<String>,
    control: Vec<String>,
    other: Vec<String>,
}

impl Files {
    /// Sorts the files of a set, and warns about files that are not used.
    pub(super) fn sort(mut entries: Vec<Entry>, links: &[String], warnings: &mut Vec<String>) -> Files {
        let runs = layout::without_runs(&mut entries);
        let named = |kind: FileKind| entries.iter().filter(move |e| e.kind == kind);
        let stems: HashSet<String> = named(FileKind::Picture).map(|e| stem(&e.name)).collect();
        let texts: HashSet<String> = named(FileKind::Text).map(|e| stem(&e.name)).collect();
        let all = |test: fn(&str) -> bool| named(FileKind::Picture).all(|e| test(&e.name));
        let excluded = [layout::is_regularisation, layout::is_control].map(|test| (test, all(test)));
        let mut files = Files::default();
        let mut unused = Unused::default();
        let mut repeats = BTreeMap::new();
        for mut entry in entries {
            let stem = stem(&entry.name);
            let of = masked(&entry.name).into_iter().find(|of| stems.contains(of) && *of != stem);
            if entry.kind == FileKind::Picture && of.is_some() && !texts.contains(&stem) {
                entry.kind = FileKind::Mask;
            }
            let is_excluded = |i: usize| !excluded[i].1 && excluded[i].0(&entry.name);
            // A second file of the same stem differs in its extension only. The first is used.
            match entry.kind {
                FileKind::Picture | FileKind::Mask if is_excluded(0) => {
                    unused.regularisation.push(entry.name)
                }
                FileKind::Picture if is_excluded(1) => unused.control.push(entry.name),
                FileKind::Picture => {
                    repeats.extend(layout::repeats(&entry.name));
                    files.pictures.push(entry);
                }
                FileKind::Table => files.sources.tables.push(entry),
                FileKind::Mask => match of {
                    None => unused.lone_masks.push(entry.name),
                    Some(of) if files.masks.contains_key(&of) => unused.other.push(entry.name),
                    Some(of) => drop(files.masks.insert(of, entry)),
                },
                FileKind::Text if stems.contains(&stem) => {
                    unused.other.extend(files.sources.add(stem, entry).map(|second| second.name));
                }
                FileKind::Unread => unused.unread.push(entry.name),
                FileKind::Text | FileKind::Other => unused.other.push(entry.name),
            }
        }
        let repeats: Vec<String> =
            repeats.into_iter().map(|(folder, n)| format!("{folder} ({n} times)")).collect();
        files.warn(unused, [&runs, links, &repeats], warnings);
        files
    }

    fn warn(&mut self, unused: Unused, [runs, links, repeats]: [&[String]; 3], warnings: &mut Vec<String>) {
        let mut warn = |what: &str, names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let line = (!names.is_empty()).then(|| format!("{what}: {}", list(&names)));
            warnings.extend(line.clone());
            line
        };
        warn("masks without a picture", &unused.lone_masks);
        warn("files that are not used", &unused.other);
        let formats: HashSet<String> = unused.unread.iter().map(|name| layout::format(base(name))).collect();
        let mut formats: Vec<String> = formats.into_iter().collect();
        formats.sort();
        let what = format!("{} is not read (convert to PNG or JPEG)", formats.join(", "));
        let unread = warn(&what, &unused.unread);
        let links = warn("links out of the set's folder are not followed", links);
        let runs = warn("a run's files are passed over", runs);
        let kept = "regularisation pictures are not used: nothing is learnt from them";
        warn(kept, &unused.regularisation);
        warn("pictures that steer others are not used", &unused.control);
        warn("each picture is learnt from as often as others, whatever its folder's name says", repeats);
        self.reason = unread.or(links).or(runs);
    }
}
