//! The demo on one page: the set, the pictures before and after, and the losses.

use calotype_sdxl::pipeline::Image;
use calotype_sdxl::token::find_token;
use calotype_train::chart::Losses;
use calotype_train::page::{BODY, DETAIL, LINE, MARGIN, NAME, Page, TITLE, characters, wrap};

use super::mascot::{SIDE, Scene};

const GAP: u32 = 16;
/// The side of a picture on the page: one and a half times the picture's own.
const PICTURE: u32 = 192;
const CAPTION_LINES: u32 = 2;
const CHART: u32 = 330;
/// The height from one row of pictures to the next.
const ROW: u32 = 2 * LINE + PICTURE + (CAPTION_LINES + 2) * LINE;
const TOP: u32 = MARGIN + 4 * LINE;

pub struct Sheet<'a> {
    pub scenes: &'a [Scene],
    pub prompts: &'a [&'a str],
    /// A picture for each prompt.
    pub before: &'a [Image],
    pub after: &'a [Image],
    pub losses: Losses,
}

impl Sheet<'_> {
    pub fn page(&self) -> Page {
        let columns = self.scenes.len().max(self.prompts.len()) as u32;
        let width = 2 * MARGIN + columns * (PICTURE + GAP) - GAP;
        let mut page = Page::new((width, TOP + 3 * ROW + CHART + MARGIN));
        page.text((MARGIN, MARGIN), "calotype demo", TITLE);
        let steps = self.losses.steps;
        let what = format!(
            "A new word, TOK, and a LoRA: learnt from {} pictures in {steps} steps",
            self.scenes.len()
        );
        page.text((MARGIN, MARGIN + 2 * LINE), &what, DETAIL);
        page.rule(MARGIN + 3 * LINE + 4);

        let captions: Vec<String> = self.scenes.iter().map(Scene::caption).collect();
        let drawn: Vec<Vec<u8>> = self.scenes.iter().map(Scene::draw).collect();
        let shown = drawn.iter().zip(&captions);
        let shown = shown.map(|(rgb, caption)| (rgb.as_slice(), (SIDE, SIDE), caption.as_str()));
        row(&mut page, 0, "The pictures to learn from, and their captions", shown);
        let (before, after) = (self.with_prompts(self.before), self.with_prompts(self.after));
        row(&mut page, 1, "Before: the model has never seen TOK", before);
        row(
            &mut page,
            2,
            "After: the same prompts and seeds; none of these places was in the pictures",
            after,
        );
        let chart = self.losses.chart((width - MARGIN, CHART));
        page.page((0, TOP + 3 * ROW), &chart);
        page
    }

    fn with_prompts<'a>(&'a self, images: &'a [Image]) -> impl Iterator<Item = Captioned<'a>> {
        let pictures = images.iter().zip(self.prompts);
        pictures.map(|(image, prompt)| (image.rgb.as_slice(), (image.width, image.height), *prompt))
    }
}

/// Rows of RGB pixels, (width, height), and the text below the picture.
type Captioned<'a> = (&'a [u8], (usize, usize), &'a str);

/// Draws row `i` of pictures, with a text below each.
fn row<'a>(page: &mut Page, i: u32, heading: &str, pictures: impl Iterator<Item = Captioned<'a>>) {
    let y = TOP + i * ROW;
    page.text((MARGIN, y), heading, NAME);
    let y = y + 2 * LINE - 4;
    for (column, (rgb, size, caption)) in pictures.enumerate() {
        let x = MARGIN + column as u32 * (PICTURE + GAP);
        page.square((x, y), rgb, size, PICTURE);
        for (n, line) in wrap(caption, characters(PICTURE), CAPTION_LINES as usize).iter().enumerate() {
            let at = (x, y + PICTURE + 6 + n as u32 * LINE);
            page.text_marking(at, line, BODY, &find_token(line, "TOK"));
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
        let sheet = Sheet {
            scenes: &super::super::SCENES,
            prompts: &["TOK on a beach", "TOK on the moon"],
            before: &[image(128, red), image(128, green)],
            after: &[image(64, green), image(64, red)],
            losses: Losses::default(),
        };
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
