//! A training set as a picture: a contact sheet of the prepared pictures.

use image::imageops::{self, FilterType};
use image::{GrayImage, Rgb, RgbImage};

use super::index::Record;
use super::note::Note;
use super::report::{counted, size};
use super::{Dataset, Example};
use crate::page::{
    ACCENT, BODY, DETAIL, LINE, MARGIN, MARKED, NAME, Page, RULE, Style, TITLE, characters, cut, wrap,
};
use calotype_models::shorten;
use calotype_sdxl::token::find_token;

const THUMBNAIL: u32 = 192;
const GAP: u32 = 24;
/// The gap between a caption and the text above it.
const SMALL_GAP: u32 = 4;
const CAPTION_LINES: usize = 5;
/// Even a sheet of one picture has room for the header and the warnings.
const COLUMNS: std::ops::RangeInclusive<usize> = 3..=6;
/// The most pictures. Viewers could not open a larger sheet.
const MAX_PICTURES: usize = 240;
const MAX_WARNINGS: usize = 20;
const NOTE_LINES: usize = 3;
/// Warnings about one picture.
const WARNING: Style = Style { colour: ACCENT, bold: false, scale: 1 };
/// The mask's value at which its edge is drawn.
const EDGE: u8 = 128;

/// A picture with the lines of its caption and of its warnings.
struct Cell<'a> {
    example: &'a Example,
    record: &'a Record,
    caption: Vec<String>,
    notes: Vec<String>,
}

impl Dataset {
    /// The set as a PNG: each prepared picture, darker where its mask is black, with a line around what is bright, with name, size and caption, and with the token
    /// in colour. Warnings are at the end. Only the first 240 pictures of a large set are shown.
    pub fn contact_sheet(&self) -> Vec<u8> {
        let characters = characters(THUMBNAIL);
        let cells: Vec<Cell> = self
            .with_records()
            .take(MAX_PICTURES)
            .map(|(example, record)| Cell {
                example,
                record,
                caption: wrap(&example.caption, characters, CAPTION_LINES),
                notes: notes(record, characters),
            })
            .collect();
        // As few rows as possible, with about the same number of pictures in each.
        let rows = cells.len().div_ceil(*COLUMNS.end()).max(1);
        let columns = cells.len().div_ceil(rows).max(*COLUMNS.start());
        let width = 2 * MARGIN + columns as u32 * (THUMBNAIL + GAP) - GAP;
        let warnings = self.warning_lines(characters_across(width));
        let body: u32 = cells.chunks(columns).map(row_height).sum();
        let footer = if warnings.is_empty() { 0 } else { (warnings.len() as u32 + 1) * LINE + GAP };
        let top = MARGIN + 2 * LINE + LINE + GAP;
        let mut sheet = Page::new((width, top + body + footer + MARGIN - GAP));

        self.draw_header(&mut sheet, cells.len());
        let mut y = top;
        for row in cells.chunks(columns) {
            for (i, cell) in row.iter().enumerate() {
                self.draw_cell(&mut sheet, (MARGIN + i as u32 * (THUMBNAIL + GAP), y), cell);
            }
            y += row_height(row);
        }
        draw_warnings(&mut sheet, y, &warnings);
        sheet.png()
    }

    fn draw_header(&self, sheet: &mut Page, shown: usize) {
        let width = characters_across(sheet.size().0);
        sheet.text((MARGIN, MARGIN), "Training set", TITLE);
        let hidden = self.examples.len() - shown;
        let more = if hidden == 0 { String::new() } else { format!(", the first {shown} shown") };
        let summary = format!("{}{more}", self.summary());
        sheet.text((MARGIN, MARGIN + 2 * LINE), &cut(&summary, width), DETAIL);
        sheet.rule(MARGIN + 3 * LINE + GAP / 4);
    }

    fn draw_cell(&self, sheet: &mut Page, (x, y): (u32, u32), cell: &Cell) {
        let example = cell.example;
        sheet.paste((x, y), &thumbnail(example, self.resolution));
        let width = characters(THUMBNAIL);
        let mut y = y + THUMBNAIL + GAP / 3;
        sheet.text((x, y), &cut_front(&shorten(&example.name), width), NAME);
        y += LINE;
        let mask = if example.mask.is_some() { ", mask" } else { "" };
        sheet.text((x, y), &cut(&format!("{}{mask}", size(example, cell.record)), width), DETAIL);
        y += SMALL_GAP;
        for line in &cell.caption {
            y += LINE;
            sheet.text_marking((x, y), line, BODY, &find_token(line, &self.token));
        }
        for line in &cell.notes {
            y += LINE;
            sheet.text((x, y), line, WARNING);
        }
    }

    /// The lines of the footer, of at most `width` characters. The first is its heading.
    fn warning_lines(&self, width: usize) -> Vec<String> {
        if self.warnings.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![counted(self.warnings.len(), "warning")];
        lines.extend(self.warnings.iter().take(MAX_WARNINGS).map(|warning| cut(warning, width)));
        if let Some(more) = self.warnings.len().checked_sub(MAX_WARNINGS).filter(|&more| more > 0) {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

/// The lines of the warnings about a picture; its size says that it was enlarged.
fn notes(record: &Record, width: usize) -> Vec<String> {
    let notes = record.notes.iter().filter(|note| !matches!(note, Note::Small { .. }));
    notes.flat_map(|note| wrap(&note.text(), width, NOTE_LINES)).collect()
}

/// The height of a row, including the gap below it.
fn row_height(row: &[Cell]) -> u32 {
    let lines = row.iter().map(|cell| (cell.caption.len() + cell.notes.len()) as u32).max().unwrap_or(0);
    THUMBNAIL + GAP / 3 + (2 + lines) * LINE + SMALL_GAP + GAP
}

fn characters_across(width: u32) -> usize {
    characters(width - 2 * MARGIN)
}

fn draw_warnings(sheet: &mut Page, y: u32, lines: &[String]) {
    let Some((heading, lines)) = lines.split_first() else { return };
    sheet.rule(y);
    let y = y + GAP / 2;
    sheet.text((MARGIN, y), heading, MARKED);
    for (i, line) in lines.iter().enumerate() {
        sheet.text((MARGIN, y + (i as u32 + 1) * LINE), line, BODY);
    }
}

/// A small version of a prepared picture. It has a quarter of the brightness where the mask is 0.
fn thumbnail(example: &Example, resolution: usize) -> RgbImage {
    let side = resolution as u32;
    let Some(picture) = RgbImage::from_raw(side, side, example.rgb.clone()) else {
        return RgbImage::from_pixel(THUMBNAIL, THUMBNAIL, Rgb(RULE));
    };
    let mut picture = imageops::resize(&picture, THUMBNAIL, THUMBNAIL, FilterType::Triangle);
    let mask = example.mask.clone().and_then(|mask| GrayImage::from_raw(side, side, mask));
    if let Some(mask) = mask {
        let mask = imageops::resize(&mask, THUMBNAIL, THUMBNAIL, FilterType::Triangle);
        for (pixel, mask) in picture.pixels_mut().zip(mask.pixels()) {
            let light = 85 + u32::from(mask.0[0]);
            pixel.0 = pixel.0.map(|c| (u32::from(c) * light / 340) as u8);
        }
        draw_edge(&mut picture, &mask);
    }
    picture
}

/// Draws the line at which a mask becomes brighter than half, on its bright side.
fn draw_edge(picture: &mut RgbImage, mask: &GrayImage) {
    let is_bright = |x: u32, y: u32| mask.get_pixel_checked(x, y).is_none_or(|value| value.0[0] >= EDGE);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let around = [(x + 1, y), (x, y + 1), (x.wrapping_sub(1), y), (x, y.wrapping_sub(1))];
        if is_bright(x, y) && !around.into_iter().all(|(x, y)| is_bright(x, y)) {
            *pixel = Rgb(ACCENT);
        }
    }
}

/// Cuts text to `width` characters at its beginning, because the end of a path is more informative.
fn cut_front(text: &str, width: usize) -> String {
    match text.chars().count().checked_sub(width) {
        None | Some(0) => text.to_owned(),
        Some(over) => std::iter::once('…').chain(text.chars().skip(over + 1)).collect(),
    }
}
