//! A CSV with the captions of all pictures.

use std::collections::HashMap;

use super::archive::Entry;
use super::error::{list, list_most};
use super::kind::base;
use super::{DatasetError, captions::one_line, captions::utf8};
use crate::config::shorten;

const FILE_COLUMNS: [&str; 2] = ["image_file", "file_name"];
const CAPTION_COLUMNS: [&str; 2] = ["caption", "text"];

/// How many files a message names: all that someone would mend by hand.
const NAMED: usize = 50;

/// A row: a picture's caption.
struct Row {
    line: u64,
    file: String,
    caption: String,
}

/// The caption of each of `pictures` (paths), by the table.
///
/// # Errors
/// The table is no CSV of two such columns, names a file that may be more than one picture of the set, or one twice; or it
/// names files that are no picture of the set, or has no caption for pictures: all of them are named.
pub(super) fn captions(table: &Entry, pictures: &[&str]) -> Result<Vec<String>, DatasetError> {
    let wrong = |line: u64, problem: String| {
        Err(DatasetError::caption(&table.name, format!("line {line}: {problem}")))
    };
    let index = Index::new(&table.name, pictures);
    let mut captions: Vec<Option<(u64, String)>> = vec![None; pictures.len()];
    let mut unknown = Vec::new();
    for Row { line, file, caption } in rows(table)? {
        let picture = match index.find(&file).as_slice() {
            [] => {
                unknown.push(format!("{file} (line {line})"));
                continue;
            }
            [picture] => *picture,
            several => {
                let names: Vec<&str> = several.iter().map(|&i| pictures[i]).collect();
                return wrong(line, format!("{} may be {}: give its path", shorten(&file), list(&names)));
            }
        };
        if let Some((first, _)) = &captions[picture] {
            return wrong(line, format!("{} was given in line {first} already", shorten(&file)));
        }
        captions[picture] = Some((line, caption));
    }
    let captions =
        captions.into_iter().map(|caption| caption.map(|(_, caption)| caption).unwrap_or_default());
    let captions: Vec<String> = captions.collect();
    let without = pictures.iter().zip(&captions).filter(|(_, caption)| caption.is_empty());
    let without: Vec<&str> = without.map(|(picture, _)| *picture).collect();
    let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
    for (what, files) in [("no such picture in the set:", unknown), ("no caption for", without)] {
        if !files.is_empty() {
            return Err(DatasetError::caption(&table.name, format!("{what} {}", list_most(&files, NAMED))));
        }
    }
    Ok(captions)
}

/// The pictures by the names that a table may call them.
struct Index<'a> {
    /// The folder that the table is in, with a `/` at its end.
    folder: &'a str,
    by_path: HashMap<&'a str, usize>,
    by_base: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Index<'a> {
    fn new(table: &'a str, pictures: &[&'a str]) -> Self {
        let mut by_base: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, picture) in pictures.iter().enumerate() {
            by_base.entry(base(picture)).or_default().push(i);
        }
        let by_path = pictures.iter().enumerate().map(|(i, picture)| (*picture, i)).collect();
        Self { folder: &table[..table.len() - base(table).len()], by_path, by_base }
    }

    /// The pictures that `file` may be: the one at this path in the set, or from the table's folder; else those with
    /// this name in any folder.
    fn find(&self, file: &str) -> Vec<usize> {
        // As systems with other separators write it.
        let file = file.replace('\\', "/");
        let file = file.trim_start_matches("./");
        let beside = format!("{}{file}", self.folder);
        match self.by_path.get(file).or_else(|| self.by_path.get(beside.as_str())) {
            Some(picture) => vec![*picture],
            None => self.by_base.get(base(file)).cloned().unwrap_or_default(),
        }
    }
}

fn rows(table: &Entry) -> Result<Vec<Row>, DatasetError> {
    let wrong = |problem: String| DatasetError::caption(&table.name, problem);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(utf8(table)?.as_bytes());
    let headers = reader.headers().map_err(|e| wrong(describe(&e)))?.clone();
    let column = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| headers.iter().position(|h| h.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            let found: Vec<&str> = headers.iter().collect();
            wrong(format!("expected a column {}, found {}", names.join(" or "), shorten(&found.join(", "))))
        })
    };
    let (file, caption) = (column(FILE_COLUMNS)?, column(CAPTION_COLUMNS)?);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| wrong(describe(&e)))?;
        // Spreadsheets leave rows of empty fields.
        if record.iter().any(|field| !field.is_empty()) {
            let line = record.position().map_or(0, csv::Position::line);
            let field = |column: usize| record.get(column).unwrap_or_default();
            rows.push(Row { line, file: field(file).into(), caption: one_line(field(caption)) });
        }
    }
    Ok(rows)
}

/// An error of the CSV in one line.
fn describe(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!(
                "line {line}: expected {expected_len} fields, found {len} (a comma in a caption needs quotes around it)"
            )
        }
        _ => shorten(&error.to_string()),
    }
}
