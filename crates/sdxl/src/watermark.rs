//! The invisible watermark of finished pictures: 48 bits in the colours, which say that a program made the picture.
//!
//! This is the method `dwtDct` of the Python package `invisible-watermark`, with the message that Stability AI and diffusers
//! use for SDXL, so that their detectors find it. The picture's channel U goes through one level of a Haar transform. In each
//! block of 4 × 4 averages (8 × 8 pixels), the largest one carries one bit. The watermark does not survive lossy compression
//! or scaling.

/// The least width and height of a picture with a watermark, in pixels, as in diffusers.
pub const MIN_SIDE: usize = 256;
/// The number of bits in the message.
pub const BITS: usize = 48;

/// The message, the highest bit first.
const MESSAGE: u64 = 0xb3ec_907b_b19e;
/// The distance of two values that carry the same bit.
const STEP: f64 = 36.0;
/// Averages of a block's side. An average is one of 2 × 2 pixels.
const BLOCK: usize = 4;
/// Pixels of a block's side.
const BLOCK_PIXELS: usize = 2 * BLOCK;

/// How surely a picture has the watermark. The limits are those of Stability AI's detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// At most 27 of the 48 bits are right.
    None,
    /// 28 to 33 bits: this may be chance.
    Uncertain,
    /// 34 or 35 bits.
    Likely,
    /// More than 35 bits.
    VeryLikely,
}

impl Verdict {
    /// The verdict on a picture in which `right` of the 48 bits are those of the message.
    pub fn of(right: usize) -> Verdict {
        match right {
            0..=27 => Verdict::None,
            28..=33 => Verdict::Uncertain,
            34..=35 => Verdict::Likely,
            _ => Verdict::VeryLikely,
        }
    }
}

/// Whether a picture of this size can have the watermark: both sides have at least [`MIN_SIDE`] pixels.
pub fn fits(width: usize, height: usize) -> bool {
    width.min(height) >= MIN_SIDE
}

/// Puts the watermark into a picture: `rgb` has `height` rows of `width` pixels, 3 bytes each. The picture stays as it is if it
/// is too small ([`fits`]). Each block of 8 × 8 pixels changes in 2 × 2 pixels.
///
/// # Panics
/// If `rgb` has another length than the size implies.
pub fn embed(rgb: &mut [u8], width: usize, height: usize) {
    assert_eq!(rgb.len(), 3 * width * height, "three bytes for each pixel");
    if !fits(width, height) {
        return;
    }
    for (i, (x, y)) in blocks(width, height).enumerate() {
        let (average, (x, y)) = carrier(rgb, width, (x, y));
        let bit = f64::from(u8::from(message_bit(i)));
        let magnitude = ((average.abs() / STEP).floor() + 0.25 + 0.5 * bit) * STEP;
        // An average is half of the sum of four pixels: each of them gets half of the change.
        let change = (magnitude.copysign(average) - average) / 2.0;
        for at in square(width, (x, y)) {
            add_to_u(&mut rgb[at..at + 3], change);
        }
    }
}

/// The number of bits, of 48, that are those of the message. About 24 are so by chance. `None`: the picture is too small to have
/// a watermark ([`fits`]).
///
/// # Panics
/// If `rgb` has another length than the size implies.
pub fn detect(rgb: &[u8], width: usize, height: usize) -> Option<usize> {
    assert_eq!(rgb.len(), 3 * width * height, "three bytes for each pixel");
    if !fits(width, height) {
        return None;
    }
    let (mut ones, mut all) = ([0usize; BITS], [0usize; BITS]);
    for (i, place) in blocks(width, height).enumerate() {
        let (average, _) = carrier(rgb, width, place);
        ones[i % BITS] += usize::from(average.abs() % STEP > STEP / 2.0);
        all[i % BITS] += 1;
    }
    Some((0..BITS).filter(|&i| (2 * ones[i] > all[i]) == message_bit(i)).count())
}

/// The bit that block `i` carries.
fn message_bit(i: usize) -> bool {
    MESSAGE >> (BITS - 1 - i % BITS) & 1 == 1
}

/// The upper left pixels (x, y) of all complete blocks, row by row.
fn blocks(width: usize, height: usize) -> impl Iterator<Item = (usize, usize)> {
    let (columns, rows) = (width / BLOCK_PIXELS, height / BLOCK_PIXELS);
    (0..rows * columns).map(move |i| (i % columns * BLOCK_PIXELS, i / columns * BLOCK_PIXELS))
}

/// The average that carries the bit of the block at (x, y), and the average's upper left pixel: the first one of the largest
/// magnitude. The block's first average carries none.
fn carrier(rgb: &[u8], width: usize, (x, y): (usize, usize)) -> (f64, (usize, usize)) {
    let mut largest = (0.0, (0, 0));
    for i in 1..BLOCK * BLOCK {
        let place = (x + 2 * (i % BLOCK), y + 2 * (i / BLOCK));
        let average = average(rgb, width, place);
        if i == 1 || average.abs() > f64::abs(largest.0) {
            largest = (average, place);
        }
    }
    largest
}

/// The Haar transform's average of U over 2 × 2 pixels. The sum is one of integers, so that pixels of the same colours have the
/// same average in any order.
fn average(rgb: &[u8], width: usize, place: (usize, usize)) -> f64 {
    // 1000 (B − Y), with Y = .299 R + .587 G + .114 B.
    let thousand = |at: usize| {
        let [r, g, b] = [0, 1, 2].map(|channel| i32::from(rgb[at + channel]));
        886 * b - 299 * r - 587 * g
    };
    let sum: i32 = square(width, place).map(thousand).sum();
    // U = .492 (B − Y) + .5, and the sum of the four is halved.
    0.492 * f64::from(sum) / 2000.0 + 1.0
}

/// The places in `rgb` of the 2 × 2 pixels at (x, y).
fn square(width: usize, (x, y): (usize, usize)) -> impl Iterator<Item = usize> {
    [(0, 0), (1, 0), (0, 1), (1, 1)].into_iter().map(move |(dx, dy)| 3 * ((y + dy) * width + x + dx))
}

/// Adds `change` to the U of a pixel: to YUV and back, clamped and rounded.
fn add_to_u(pixel: &mut [u8], change: f64) {
    let [r, g, b] = [0, 1, 2].map(|channel| f64::from(pixel[channel]));
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    // Without the offset of .5, which is subtracted again.
    let (u, v) = (0.492 * (b - y) + change, 0.877 * (r - y));
    let rgb = [y + 1.140 * v, y - 0.395 * u - 0.581 * v, y + 2.032 * u];
    for (byte, value) in pixel.iter_mut().zip(rgb) {
        *byte = value.round_ties_even().clamp(0.0, 255.0) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey picture, with a spot of colour in each block of 8 × 8 pixels.
    fn picture(width: usize, height: usize) -> Vec<u8> {
        let pixel = |i: usize| {
            let (x, y) = (i % width, i / width);
            let block = x / 8 * 5 + y / 8 * 3;
            let in_spot = (x % 8 / 2, y % 8 / 2) == (block % 4, 1 + block % 3);
            if in_spot { [(block * 7 % 90) as u8, 60, 255 - (block % 50) as u8] } else { [100, 110, 120] }
        };
        (0..width * height).flat_map(pixel).collect()
    }

    /// Protects the round trip: all bits are read back from a marked picture of any size, and not from the plain one.
    #[test]
    fn reads_what_it_writes() {
        for (width, height) in [(256, 256), (256, 1024), (267, 300), (511, 259)] {
            let mut rgb = picture(width, height);
            let plain = rgb.clone();
            let chance = detect(&rgb, width, height).expect("large enough");
            assert!(Verdict::of(chance) < Verdict::Likely, "{width} × {height}: {chance} bits by chance");
            embed(&mut rgb, width, height);
            assert_eq!(detect(&rgb, width, height), Some(BITS), "{width} × {height}");
            let changed = rgb.chunks(3).zip(plain.chunks(3)).filter(|(a, b)| a != b).count();
            assert!(changed <= 4 * (width / 8) * (height / 8), "{changed} pixels changed");
        }
    }

    /// Protects small pictures: below 256 pixels in either side nothing changes, and nothing is read.
    #[test]
    fn small_pictures_stay_as_they_are() {
        for (width, height) in [(255, 256), (256, 255), (1024, 128), (1, 1), (0, 0)] {
            let mut rgb = picture(width, height);
            embed(&mut rgb, width, height);
            assert_eq!(rgb, picture(width, height));
            assert_eq!(detect(&rgb, width, height), None);
        }
    }

    /// Protects extreme colours: values are clamped, so that no channel wraps around.
    #[test]
    fn extreme_colours_are_clamped() {
        for colour in [[0, 0, 0], [255, 255, 255], [0, 0, 255], [255, 255, 0]] {
            let mut rgb = colour.repeat(256 * 256);
            embed(&mut rgb, 256, 256);
            let furthest =
                rgb.chunks(3).flat_map(|pixel| pixel.iter().zip(colour)).map(|(a, b)| a.abs_diff(b));
            assert!(furthest.max() <= Some(40), "{colour:?}");
        }
    }

    /// Protects the limits of the verdict.
    #[test]
    fn verdicts() {
        let limits = [(27, Verdict::None), (28, Verdict::Uncertain), (33, Verdict::Uncertain)];
        let more = [(34, Verdict::Likely), (35, Verdict::Likely), (36, Verdict::VeryLikely)];
        for (right, verdict) in limits.into_iter().chain(more) {
            assert_eq!(Verdict::of(right), verdict, "{right}");
        }
    }
}
