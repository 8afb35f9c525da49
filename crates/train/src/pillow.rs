//! Resizing as Pillow does, as the published trainer and the networks have it, to the last bit: all rows and all columns, each pass rounded to
//! 8 bits.

use calotype_models::config::Resample;

/// Weights are whole numbers of 2⁻²².
const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The pixels that make a pixel of the result, along one axis.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// A picture of `channels` bytes a pixel, at most 4, `from` wide and high, resized to the width and height `to`. A row of the picture begins
/// `line` bytes after the one above, so that the picture may be a part of a wider one. When it shrinks, the filter grows with the
/// pixels that it covers.
///
/// # Panics
/// If a side is 0, or the picture has fewer bytes.
pub(crate) fn resize(
    picture: &[u8],
    line: usize,
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    filter: Resample,
) -> Vec<u8> {
    let [[width, height], [new_width, new_height]] = [from, to];
    // The order that Pillow 13 was seen to take. It shows in the last bits, since each pass is rounded and cut to 0..=255.
    let columns_first = height > new_height && height - new_height > 2 * width.saturating_sub(new_width);
    let rows: Vec<&[u8]> = picture.chunks(line).map(|row| &row[..channels * width]).take(height).collect();
    assert_eq!(rows.len(), height, "rows of the picture");
    if columns_first {
        let columns = resize_columns(&rows, new_height, filter);
        let rows: Vec<&[u8]> = columns.chunks_exact(channels * width).collect();
        return resize_rows(&rows, channels, new_width, filter);
    }
    let narrow = resize_rows(&rows, channels, new_width, filter);
    let rows: Vec<&[u8]> = narrow.chunks_exact(channels * new_width).collect();
    resize_columns(&rows, new_height, filter)
}

/// Each row becomes one of `to` pixels.
fn resize_rows(rows: &[&[u8]], channels: usize, to: usize, filter: Resample) -> Vec<u8> {
    if rows[0].len() == channels * to {
        return rows.concat();
    }
    let taps = taps(rows[0].len() / channels, to, filter);
    let mut out = Vec::with_capacity(channels * to * rows.len());
    for (row, tap) in rows.iter().flat_map(|row| taps.iter().map(move |tap| (row, tap))) {
        let mut sums = [HALF; 4];
        for (pixel, weight) in row[channels * tap.start..].chunks_exact(channels).zip(&tap.weights) {
            add(&mut sums, pixel, *weight);
        }
        out.extend(sums[..channels].iter().map(rounded));
    }
    out
}

/// The rows become `to` rows.
fn resize_columns(rows: &[&[u8]], to: usize, filter: Resample) -> Vec<u8> {
    if rows.len() == to {
        return rows.concat();
    }
    let mut out = Vec::with_capacity(rows[0].len() * to);
    for tap in taps(rows.len(), to, filter) {
        let mut sums = vec![HALF; rows[0].len()];
        rows[tap.start..].iter().zip(&tap.weights).for_each(|(row, weight)| add(&mut sums, row, *weight));
        out.extend(sums.iter().map(rounded));
    }
    out
}

/// Adds `values`, each times a weight. The sums stay below 2³¹, as the magnitudes of a pixel's weights add up to less than 1.6 · 2²².
fn add(sums: &mut [i32], values: &[u8], weight: i32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        // Without a check for overflow, which costs more than the product.
        *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(*value)));
    }
}

fn rounded(sum: &i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
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
            (scaled + 0.5_f64.copysign(scaled)) as i32
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
