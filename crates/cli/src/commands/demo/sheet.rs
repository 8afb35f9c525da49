//! The demo on one page: the set, the pictures before and after, and the losses.

use calotype_sdxl::pipeline::Image;
use calotype_sdxl::token::find_token;
use calotype_train::chart::Losses;
use calotype_train::page::{BODY, DETAIL, LINE, MARGIN, NAME, Page, TITLE, characters, wrap};

const GAP: u32 = 16;
/// The side of a picture on the page: one and a half times the picture's own.
const PICTURE: u32 = 192;
const CAPTION_LINES: u32 = 2;
const CHART: u32 = 330;
/// The height from one row of pictures to the next.
const ROW: u32 = 2 * LINE + PICTURE + (CAPTION_LINES + 2) * LINE;
const TOP: u32 = MARGIN + 4 * LINE;

/// The demo on one page.
pub struct Sheet<'a> {
    /// What was done, in a line.
    pub what: String,
    pub rows: Vec<Row<'a>>,
    pub losses: Losses,
}

/// A row of pictures below a heading.
pub struct Row<'a> {
    pub heading: &'a str,
    pub pictures: Vec<Captioned<'a>>,
}

/// Rows of RGB pixels, (width, height), and the text below the picture.
pub type Captioned<'a> = (&'a [u8], (usize, usize), &'a str);

impl<'a> Row<'a> {
    /// A row of pictures that the model made from prompts.
    pub fn made(heading: &'a str, images: &'a [Image], prompts: &'a [&'a str]) -> Row<'a> {
        let captioned = |(image, prompt): (&'a Image, &&'a str)| {
            (image.rgb.as_slice(), (image.width, image.height), *prompt)
        };
        Row { heading, pictures: images.iter().zip(prompts).map(captioned).collect() }
    }
}

impl Sheet<'_> {
    pub fn page(&self) -> Page {
        let columns = self.rows.iter().map(|row| row.pictures.len()).max().unwrap_or(0) as u32;
        let (width, rows) = (2 * MARGIN + columns * (PICTURE + GAP) - GAP, self.rows.len() as u32);
        let mut page = Page::new((width, TOP + rows * ROW + CHART + MARGIN));
        page.text((MARGIN, MARGIN), "calotype demo", TITLE);
        page.text((MARGIN, MARGIN + 2 * LINE), &self.what, DETAIL);
        page.rule(MARGIN + 3 * LINE + 4);
        for (i, row) in self.rows.iter().enumerate() {
            row.draw(&mut page, TOP + i as u32 * ROW);
        }
        let chart = self.losses.chart((width - MARGIN, CHART));
        page.page((0, TOP + rows * ROW), &chart);
        page
    }
}

impl Row<'_> {
    fn draw(&self, page: &mut Page, y: u32) {
        page.text((MARGIN, y), self.heading, NAME);
        let y = y + 2 * LINE - 4;
        for (column, (rgb, size, caption)) in self.pictures.iter().enumerate() {
            let x = MARGIN + column as u32 * (PICTURE + GAP);
            page.square((x, y), rgb, *size, PICTURE);
            for (n, line) in wrap(caption, characters(PICTURE), CAPTION_LINES as usize).iter().enumerate() {
                let at = (x, y + PICTURE + 6 + n as u32 * LINE);
                page.text_marking(at, line, BODY, &find_token(line, "TOK"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the sheet: it shows the pictures of each row, in any size that a model makes.
    #[test]
    fn what_is_shown_is_on_the_sheet() {
        let image = |side: usize, colour: [u8; 3]| Image {
            width: side,
            height: side,
            rgb: colour.repeat(side * side),
            seed: 1,
        };
        let (red, green) = ([200, 0, 0], [0, 200, 0]);
        let prompts = ["TOK on a beach", "TOK on the moon"];
        let (before, after) = ([image(128, red), image(128, green)], [image(64, green), image(64, red)]);
        let set = vec![(before[0].rgb.as_slice(), (128, 128), "TOK"); 6];
        let rows = vec![
            Row { heading: "Set", pictures: set },
            Row::made("Before", &before, &prompts),
            Row::made("After", &after, &prompts),
        ];
        let sheet = Sheet { what: "A test".into(), rows, losses: Losses::default() };
        let png = sheet.page().png();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
        let mut rgb = vec![0; reader.output_buffer_size().expect("a size")];
        reader.next_frame(&mut rgb).expect("all pixels");
        let width = reader.info().width;
        let middle = |row: u32, column: u32| {
            let x = MARGIN + column * (PICTURE + GAP) + PICTURE / 2;
            let y = TOP + row * ROW + 2 * LINE + PICTURE / 2;
            let at = ((y * width + x) * 3) as usize;
            [rgb[at], rgb[at + 1], rgb[at + 2]]
        };
        assert_eq!([middle(1, 0), middle(1, 1)], [red, green]);
        assert_eq!([middle(2, 0), middle(2, 1)], [green, red]);
        assert_eq!(width, 2 * MARGIN + 6 * (PICTURE + GAP) - GAP);
    }
}
