//! A training set as text, and for programs.

use serde::{Deserialize, Serialize};

use super::index::Record;
use super::note::Note;
use super::{Dataset, Example};
use calotype_models::shorten;

/// The most characters of a caption that are shown. 77 tokens have about 400.
const SHOWN: usize = 1000;

/// What a user should know of a picture before a training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// The path of the picture's files in the made set, without their extensions.
    pub name: String,
    /// The caption.
    pub caption: String,
    /// Width and height of the whole picture, upright, in pixels.
    pub size: [usize; 2],
    /// Whether a network has enlarged the square.
    pub upscaled: bool,
    /// Whether the square has a mask.
    pub has_mask: bool,
    /// Warnings about the picture alone, one line each.
    pub warnings: Vec<String>,
}

impl Dataset {
    /// The pictures, in the order of the set.
    pub fn pictures(&self) -> Vec<Picture> {
        let picture = |(example, record): (&Example, &Record)| Picture {
            name: record.name.clone(),
            caption: example.caption.clone(),
            size: [example.original_size[1], example.original_size[0]],
            upscaled: record.upscaled.is_some(),
            has_mask: example.mask.is_some(),
            warnings: record.notes.iter().map(Note::text).collect(),
        };
        self.with_records().map(picture).collect()
    }

    /// A report of the set: the number of pictures, a line for each (name, size, crop, mask, caption), and the warnings.
    pub fn report(&self) -> String {
        let header = ["picture", "size", "crop", "mask", "caption"].map(String::from);
        let rows: Vec<[String; 5]> = std::iter::once(header).chain(self.with_records().map(row)).collect();
        let mut report = format!("{}\n\n", self.summary());
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 4] = std::array::from_fn(width);
        for row in &rows {
            for (field, width) in row.iter().zip(widths) {
                report.push_str(&format!("{field:<width$}  "));
            }
            report.push_str(&row[4]);
            report.push('\n');
        }
        if !self.warnings.is_empty() {
            report.push_str(&format!("\n{}:\n", counted(self.warnings.len(), "warning")));
            for warning in &self.warnings {
                report.push_str(&format!("- {warning}\n"));
            }
        }
        report
    }

    /// The examples with what the preprocessing knows of each.
    pub(super) fn with_records(&self) -> impl Iterator<Item = (&Example, &Record)> {
        self.examples.iter().zip(&self.records)
    }

    /// `5 pictures, each as 512 × 512`, and the number of pictures with masks.
    pub(super) fn summary(&self) -> String {
        let masks = self.examples.iter().filter(|e| e.mask.is_some()).count();
        let with_masks = if masks == 0 { String::new() } else { format!(", {masks} with a mask") };
        let side = self.resolution;
        format!("{}, each as {side} × {side}{with_masks}", counted(self.examples.len(), "picture"))
    }
}

fn row((example, record): (&Example, &Record)) -> [String; 5] {
    let [top, left] = example.crop_top_left;
    let mask = if example.mask.is_some() { "yes" } else { "-" };
    [
        shorten(&example.name),
        size(example, record),
        format!("top {top}, left {left}"),
        mask.into(),
        shorten_to(&example.caption, SHOWN),
    ]
}

/// The beginning of a text, with `…` if it is longer than `most` characters.
fn shorten_to(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Width × height, and by how much a network has enlarged the square, written for people.
pub(super) fn size(example: &Example, record: &Record) -> String {
    let [height, width] = example.original_size;
    let upscaled = record.upscaled.map(|factor| format!(", upscaled ×{factor}")).unwrap_or_default();
    format!("{width} × {height}{upscaled}")
}

pub(super) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
