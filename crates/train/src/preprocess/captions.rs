//! Square → caption.

use image::RgbImage;

use super::draft::Draft;
use super::earlier::{self, unusable_file};
use super::job::{CAPTION, Piece, caption_from};
use super::networks::{Caption, Network};
use super::wording::MADE_UP;
use super::{Preprocess, Progress, Stage, Writer};
use crate::dataset::DatasetError;
use crate::dataset::note::Note;
use crate::dataset::text::{alone, one_line};
use calotype_sdxl::text;
use calotype_sdxl::token::replace_token;

impl Preprocess<'_> {
    /// Gives each square its caption: that of the set, of a file that is there already, or of the network; or else the prefix alone.
    pub(super) fn caption(
        &mut self,
        squares: &mut [Draft],
        mut network: Option<Network<Caption>>,
        writer: &mut Option<&mut Writer>,
        progress: &mut Progress,
    ) -> Result<(), DatasetError> {
        let asks = |square: &Draft| network.is_some() && self.jobs[square.i].asks_captioner();
        let count = squares.iter().filter(|square| asks(square)).count();
        let mut done = 0;
        for square in squares {
            let job = &self.jobs[square.i];
            if job.caption == Piece::Make && job.asks_captioner() && network.is_some() {
                if progress(Stage::Captions, done, count).is_break() {
                    return Err(DatasetError::Interrupted);
                }
                done += 1;
            }
            let caption = self.caption_of(square, &mut network)?;
            square.record.notes.retain(|note| !matches!(note, Note::Word(_)));
            square.record.notes.extend(made_up(&caption).map(|word| Note::Word(word.into())));
            square.example.caption = caption;
            if let Some(writer) = writer {
                writer.caption(&square.example, &square.record)?;
            }
        }
        if count > 0 && progress(Stage::Captions, count, count).is_break() {
            return Err(DatasetError::Interrupted);
        }
        Ok(())
    }

    /// The caption of one square.
    fn caption_of(
        &mut self,
        square: &mut Draft,
        network: &mut Option<Network<Caption>>,
    ) -> Result<String, DatasetError> {
        let (job, set) = (&self.jobs[square.i], &self.settings.set);
        if let (Piece::Taken | Piece::ByHand, Some(folder)) = (job.caption, &self.folder) {
            square.record.caption.by_hand = job.caption == Piece::ByHand;
            let file = format!("{}.{CAPTION}", job.name);
            let bytes = earlier::read(folder, &file)?.unwrap_or_default();
            let caption = text::decode(&bytes)
                .map_err(|at| unusable_file(&folder.join(&file), text::problem(at)))
                .map(|text| one_line(&text))?;
            if !caption.is_empty() {
                return Ok(caption);
            }
            let alone = alone(set.caption_prefix);
            self.warnings.push(format!("{file} is empty: \"{alone}\" is used"));
            return Ok(alone);
        }
        square.record.captioner = None;
        let own = self.photos.all[square.i].caption.as_deref();
        square.record.caption.from = match job.caption_from.is_empty() {
            true => caption_from(&square.record.picture.from, own, &self.settings),
            false => job.caption_from.clone(),
        };
        if let Some(own) = own {
            return Ok(own.to_owned());
        }
        let Some(network) = network else { return Ok(alone(set.caption_prefix)) };
        let identity = network.identity.clone();
        let side = set.resolution as u32;
        let picture = RgbImage::from_raw(side, side, square.example.rgb.clone());
        let (Some(caption), Some(picture)) = (network.get()?, picture) else {
            return Ok(alone(set.caption_prefix));
        };
        square.record.captioner = Some(identity);
        let words = caption(&picture, seed(self.settings.seed, picture.as_raw()))?;
        Ok(joined(set.caption_prefix, &words, set.token_string))
    }
}

/// The seed of a square's caption: of the run's seed and of the square's pixels.
fn seed(run: u64, pixels: &[u8]) -> u64 {
    let mut crc = flate2::Crc::new();
    crc.update(pixels);
    run.wrapping_add(u64::from(crc.sum()) << 32)
}

/// The prefix and what a captioner says. The token has its own case, also where a captioner, which knows small letters alone, says
/// it.
fn joined(prefix: &str, words: &str, token: &str) -> String {
    match one_line(words) {
        words if words.is_empty() => alone(prefix),
        words => format!("{} {}", one_line(prefix), replace_token(&words, token, token)),
    }
}

/// The first word of a caption that captioners make up.
fn made_up(caption: &str) -> Option<&'static str> {
    let mut words = caption.split(|c: char| !c.is_alphanumeric());
    words.find_map(|word| MADE_UP.into_iter().find(|made_up| word.eq_ignore_ascii_case(made_up)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects captions: prefix and words have one blank between them, the token has its own case between blanks and before
    /// signs, and nowhere inside of other words.
    #[test]
    fn prefix_and_words() {
        let joined = |words| joined(" a photo of TOK,  ", words, "TOK");
        assert_eq!(joined("a tok, on a tok. tokyo tok"), "a photo of TOK, a TOK, on a TOK. tokyo TOK");
        assert_eq!(joined(" \n"), "a photo of TOK");
        assert_eq!(super::joined("in the style of TOK", "a dog", "TOK"), "in the style of TOK a dog");
        assert_eq!(made_up("an Arafed dog"), Some("arafed"));
        assert_eq!(made_up("a giraffe"), None);
    }

    /// Protects the seed: it follows from the run's seed and the pixels.
    #[test]
    fn seeds() {
        let all = [seed(1, b"a"), seed(1, b"b"), seed(2, b"a"), seed(2, b"b")];
        let distinct: std::collections::HashSet<u64> = all.into_iter().collect();
        assert_eq!((distinct.len(), seed(1, b"a")), (4, all[0]));
    }
}
