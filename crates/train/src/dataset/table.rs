//! A table with the captions of all pictures: CSV, or JSON lines.

use std::collections::HashMap;

use serde::Deserialize;

use super::DatasetError;
use super::error::{list, list_most};
use super::kind::{base, normal};
use super::text::one_line;
use calotype_models::shorten;

const FILE_COLUMNS: [&str; 2] = ["image_file", "file_name"];
const CAPTION_COLUMNS: [&str; 2] = ["caption", "text"];

/// The most files that a message names, as many as someone would fix by hand.
const NAMED: usize = 50;

/// The most columns of a table.
const MAX_COLUMNS: usize = 1000;

/// A row of a table: a picture and its caption.
struct Row {
    line: u64,
    file: String,
    caption: String,
}

/// Whether a table, which may be about anything, has captions.
pub(super) fn has_captions(table: &str, content: &str) -> bool {
    rows(table, content).is_ok_and(|mut rows| rows.next().is_none_or(|row| row.is_ok()))
}

/// The caption of each of `pictures` (paths), from the table with this path and content. `None`: the picture has no row, or its field
/// is not filled in.
///
/// # Errors
/// The table lacks the columns, names a file that may be any of several pictures, names a picture twice, or names files that are
/// not pictures of the set: all of them (up to a limit).
pub(super) fn captions(
    table: &str,
    content: &str,
    pictures: &[&str],
) -> Result<Vec<Option<String>>, DatasetError> {
    let wrong =
        |line: u64, problem: String| Err(DatasetError::caption(table, format!("line {line}: {problem}")));
    let index = Index::new(table, pictures);
    let mut captions: Vec<Option<(u64, String)>> = vec![None; pictures.len()];
    let (mut unknown, mut more) = (Vec::new(), 0);
    for row in rows(table, content)? {
        let Row { line, file, caption } = row?;
        let picture = match index.find(&file).as_slice() {
            [] if unknown.len() < NAMED => {
                unknown.push(format!("{} (line {line})", shorten(&file)));
                continue;
            }
            [] => {
                more += 1;
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
    if !unknown.is_empty() {
        let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let problem = format!("no such picture in the set: {}{more}", list_most(&unknown, NAMED));
        return Err(DatasetError::caption(table, problem));
    }
    let filled = |(_, caption): (u64, String)| Some(caption).filter(|caption| !caption.is_empty());
    Ok(captions.into_iter().map(|row| row.and_then(filled)).collect())
}

/// The pictures by the names that a table may give them, in normal form.
struct Index<'a> {
    /// The folder of the table, with `/` at its end.
    folder: &'a str,
    by_path: HashMap<String, usize>,
    by_base: HashMap<String, Vec<usize>>,
}

impl<'a> Index<'a> {
    fn new(table: &'a str, pictures: &[&str]) -> Self {
        let mut by_base: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, picture) in pictures.iter().enumerate() {
            by_base.entry(normal(base(picture))).or_default().push(i);
        }
        let by_path = pictures.iter().enumerate().map(|(i, picture)| (normal(picture), i)).collect();
        Self { folder: &table[..table.len() - base(table).len()], by_path, by_base }
    }

    /// The pictures that `file` may refer to: the one with this path in the set or relative to the table's folder, or else all
    /// with this name in any folder.
    fn find(&self, file: &str) -> Vec<usize> {
        // Some systems write `\` as the separator.
        let file = normal(&file.replace('\\', "/"));
        let file = file.trim_start_matches("./");
        let beside = normal(&format!("{}{file}", self.folder));
        match self.by_path.get(file).or_else(|| self.by_path.get(&beside)) {
            Some(picture) => vec![*picture],
            None => self.by_base.get(base(file)).cloned().unwrap_or_default(),
        }
    }
}

type Rows<'a> = Box<dyn Iterator<Item = Result<Row, DatasetError>> + 'a>;

/// The rows of a table, in their order.
fn rows<'a>(table: &'a str, content: &'a str) -> Result<Rows<'a>, DatasetError> {
    if table.to_ascii_lowercase().ends_with(".jsonl") {
        Ok(json_rows(table, content))
    } else {
        csv_rows(table, content)
    }
}

fn csv_rows<'a>(table: &'a str, content: &'a str) -> Result<Rows<'a>, DatasetError> {
    let wrong = |problem: String| DatasetError::caption(table, problem);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(content.as_bytes());
    let headers = reader.headers().map_err(|e| wrong(describe(&e)))?;
    if headers.len() > MAX_COLUMNS {
        return Err(wrong(format!("expected at most {MAX_COLUMNS} columns, found {}", headers.len())));
    }
    let headers = headers.clone();
    let column = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| headers.iter().position(|h| h.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            let found: Vec<&str> = headers.iter().collect();
            wrong(format!("expected a column {}, found {}", names.join(" or "), shorten(&found.join(", "))))
        })
    };
    let (file, caption) = (column(FILE_COLUMNS)?, column(CAPTION_COLUMNS)?);
    Ok(Box::new(reader.into_records().filter_map(move |record| {
        let record = match record {
            Ok(record) => record,
            Err(e) => return Some(Err(DatasetError::caption(table, describe(&e)))),
        };
        // Spreadsheets leave rows of empty fields.
        record.iter().any(|field| !field.is_empty()).then(|| {
            let line = record.position().map_or(0, csv::Position::line);
            let field = |column: usize| record.get(column).unwrap_or_default();
            Ok(Row { line, file: field(file).into(), caption: one_line(field(caption)) })
        })
    })))
}

/// A line of JSON lines about a picture. Other fields are skipped, and take no memory.
#[derive(Deserialize)]
struct JsonRow {
    image_file: Option<String>,
    file_name: Option<String>,
    caption: Option<String>,
    text: Option<String>,
}

fn json_rows<'a>(table: &'a str, content: &'a str) -> Rows<'a> {
    let lines = content.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty());
    Box::new(lines.map(move |(text, line)| {
        let wrong = |problem: String| DatasetError::caption(table, format!("line {line}: {problem}"));
        let row: JsonRow = serde_json::from_str(text).map_err(|e| wrong(shorten(&e.to_string())))?;
        let missing = |names: [&str; 2]| wrong(format!("expected a text {}, found none", names.join(" or ")));
        let file = row.image_file.or(row.file_name).ok_or_else(|| missing(FILE_COLUMNS))?;
        let caption = row.caption.or(row.text).ok_or_else(|| missing(CAPTION_COLUMNS))?;
        Ok(Row { line, file, caption: one_line(&caption) })
    }))
}

/// The message about an error in a CSV, on one line.
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
