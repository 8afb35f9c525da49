//! Resizing as Pillow does, whose results the networks learned from, to the last bit: all rows and all columns, each pass rounded to
//! 8 bits.

use calotype_models::config::Resample;

/// Weights are whole numbers of 2⁻²².
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// The pixels that make a pixel of the result, along one axis.
struct Taps {
    start: usize,
    weights: Vec<i64>,
}

/// A picture of `channels` bytes a pixel, `from` wide and high, resized to the width and height `to`. When it shrinks, the filter grows
/// with the pixels that it covers.
///
/// # Panics
/// If a side is 0, or the picture has another number of bytes.
pub(super) fn resize(
    picture: &[u8],
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    filter: Resample,
) -> Vec<u8> {
    let [[width, height], [new_width, new_height]] = [from, to];
    assert_eq!(picture.len(), channels * width * height, "bytes of the picture");
    // The order that Pillow 13 was seen to take. It shows in the last bits, since each pass is rounded and cut to 0..=255.
    let columns_first = height > new_height && height - new_height > 2 * width.saturating_sub(new_width);
    if columns_first {
        let columns = resize_columns(picture, channels * width, height, new_height, filter);
        return resize_rows(&columns, channels, width, new_width, filter);
    }
    let rows = resize_rows(picture, channels, width, new_width, filter);
    resize_columns(&rows, channels * new_width, height, new_height, filter)
}

/// Each row of `from` pixels becomes one of `to`.
fn resize_rows(picture: &[u8], channels: usize, from: usize, to: usize, filter: Resample) -> Vec<u8> {
    if from == to {
        return picture.to_vec();
    }
    let taps = taps(from, to, filter);
    let mut out = Vec::with_capacity(picture.len() / from * to);
    for row in picture.chunks_exact(channels * from) {
        for tap in &taps {
            let pixels = &row[channels * tap.start..];
            out.extend((0..channels).map(|c| tap.of(pixels[c..].iter().step_by(channels))));
        }
    }
    out
}

/// Each column of `from` bytes becomes one of `to`. A row has `line` bytes.
fn resize_columns(picture: &[u8], line: usize, from: usize, to: usize, filter: Resample) -> Vec<u8> {
    if from == to {
        return picture.to_vec();
    }
    let mut out = Vec::with_capacity(line * to);
    for tap in taps(from, to, filter) {
        out.extend((0..line).map(|x| tap.of(picture[line * tap.start + x..].iter().step_by(line))));
    }
    out
}

impl Taps {
    fn of<'a>(&self, values: impl Iterator<Item = &'a u8>) -> u8 {
        let half = 1 << (PRECISION_BITS - 1);
        let sum: i64 =
            self.weights.iter().zip(values).map(|(weight, value)| weight * i64::from(*value)).sum();
        ((sum + half) >> PRECISION_BITS).clamp(0, 255) as u8
    }
}

fn taps(from: usize, to: usize, filter: Resample) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let (support, kernel): (f64, fn(f64) -> f64) = match filter {
        Resample::Bilinear => (1.0, bilinear),
        Resample::Bicubic => (2.0, bicubic),
        Resample::Lanczos => (3.0, lanczos),
    };
    let tap = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let start = (center - support * stretch + 0.5).max(0.0) as usize;
        let end = ((center + support * stretch + 0.5) as usize).min(from);
        let weight = |x: usize| kernel((x as f64 - center + 0.5) / stretch);
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let whole = |weight: f64| {
            let scaled = weight / sum * f64::from(1 << PRECISION_BITS);
            (scaled + 0.5_f64.copysign(scaled)) as i64
        };
        Taps { start, weights: weights.into_iter().map(whole).collect() }
    };
    (0..to).map(tap).collect()
}

fn bilinear(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// The cubic convolution with a = −0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| match std::f64::consts::PI * x {
        0.0 => 1.0,
        x => x.sin() / x,
    };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}
