//! A chart of a run's losses.

use image::RgbImage;

use crate::page::{ACCENT, DETAIL, FADED, GLYPH, PAPER, Page, RULE, TITLE, cut};

/// The margins around the plot, in pixels: left, top, right, bottom.
const FRAME: [f32; 4] = [78.0, 78.0, 30.0, 64.0];

const EACH: [u8; 3] = [206, 190, 168];
const VALIDATION: [u8; 3] = [28, 92, 140];

/// The most pieces of a curve: one per pixel of a wide picture.
const MAX_POINTS: usize = 1092;

/// The data of a chart.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// The title above the plot.
    pub title: String,
    /// Step (from 1) and loss, in the order of the steps.
    pub training: Vec<(f64, f64)>,
    /// Step and validation loss.
    pub validation: Vec<(f64, f64)>,
    /// The last step of the run.
    pub steps: usize,
}

impl Losses {
    /// Draws the loss of each step, their moving mean, and the validation losses as dots. `size` is in pixels, at least 400 ×
    /// 240.
    pub fn chart(&self, size: (u32, u32)) -> Page {
        let smooth = smoothed(&self.training);
        let plot = Plot::new(size, self.steps, self.range(&smooth));
        let mut page = Page::new(size);
        plot.axes(&mut page);
        self.header(&mut page, &smooth);
        let picture = &mut page.picture;
        plot.curve(picture, &thinned(&self.training), 0.5, EACH);
        plot.curve(picture, &thinned(&smooth), 1.25, ACCENT);
        for &point in &self.validation {
            let at = plot.at(point);
            line(picture, at, at, 5.5, PAPER);
            line(picture, at, at, 4.0, VALIDATION);
        }
        page
    }

    /// The least and the greatest value of the axis. A few outliers among the steps' losses may be outside.
    fn range(&self, smooth: &[(f64, f64)]) -> (f64, f64) {
        let mut each: Vec<f64> = self.training.iter().map(|p| p.1).filter(|y| is_drawn(*y)).collect();
        each.sort_by(f64::total_cmp);
        let at = |percent: usize| each.get(each.len().saturating_sub(1) * percent / 100).copied();
        let lines = || smooth.iter().chain(&self.validation).map(|p| p.1).filter(|y| is_drawn(*y));
        let most = lines().chain(at(99)).fold(0.0, f64::max);
        (lines().chain(at(1)).fold(most, f64::min), most)
    }

    fn header(&self, page: &mut Page, smooth: &[(f64, f64)]) {
        let x = FRAME[0] as u32;
        let width = ((page.size().0 - 2 * x) / (2 * GLYPH.0)) as usize;
        page.text((x, 18), &cut(&self.title, width), TITLE);
        let last = |name: &str, points: &[(f64, f64)]| match points.last() {
            Some((_, loss)) => format!("{name} ({loss:.4})"),
            None => name.to_owned(),
        };
        let mut keys = vec![("loss of each step".into(), EACH), (last("smoothed", smooth), ACCENT)];
        if !self.validation.is_empty() {
            keys.push((last("validation", &self.validation), VALIDATION));
        }
        let mut x = x;
        for (name, colour) in keys {
            let (y, dot) = (57.0, colour == VALIDATION);
            let (from, to) = if dot { (8.0, 8.0) } else { (2.0, 14.0) };
            line(
                &mut page.picture,
                (x as f32 + from, y),
                (x as f32 + to, y),
                if dot { 4.0 } else { 1.5 },
                colour,
            );
            page.text((x + 22, 51), &name, DETAIL);
            x += 22 + name.len() as u32 * GLYPH.0 + 26;
        }
    }
}

/// Maps values to positions in the picture.
struct Plot {
    /// The size of the picture, in pixels.
    size: (f32, f32),
    steps: f64,
    bottom: f64,
    top: f64,
    /// The distance of two horizontal lines.
    y_tick: f64,
    /// The distance of two numbers on the x axis.
    x_tick: f64,
}

impl Plot {
    fn new(size: (u32, u32), steps: usize, (least, most): (f64, f64)) -> Self {
        let most = if most >= f64::from(f32::MIN_POSITIVE) { most } else { 1.0 };
        // From 0, if the curve then still takes enough of the height.
        let least = if least > most * 0.4 { least } else { 0.0 };
        let y_tick = nice((most - least).max(most * 1e-3) / 5.0);
        let x_tick = nice(steps.max(1) as f64 / 8.0).max(1.0);
        let bottom = (least / y_tick).floor() * y_tick;
        let top = ((most + 0.02 * (most - least)) / y_tick).ceil() * y_tick;
        let size = (size.0 as f32, size.1 as f32);
        Self { size, steps: steps.max(1) as f64, bottom, top: top.max(bottom + y_tick), y_tick, x_tick }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f32, f32) {
        let [left, top, right, bottom] = FRAME;
        let (width, height) = (self.size.0 - left - right, self.size.1 - top - bottom);
        let y = ((y - self.bottom) / (self.top - self.bottom)).clamp(0.0, 1.0) as f32;
        (left + (x / self.steps) as f32 * width, top + (1.0 - y) * height)
    }

    fn axes(&self, page: &mut Page) {
        let digits = (-self.y_tick.log10().floor()).clamp(0.0, 9.0) as usize;
        for i in 0..=count((self.top - self.bottom) / self.y_tick) {
            let value = self.bottom + i as f64 * self.y_tick;
            let (left, right) = (self.at((0.0, value)), self.at((self.steps, value)));
            // On whole pixels, so that the lines are thin.
            let y = left.1.round();
            line(&mut page.picture, (left.0, y), (right.0, y), 0.5, if i == 0 { FADED } else { RULE });
            let label = if value.abs() < 1e5 { format!("{value:.digits$}") } else { format!("{value:.1e}") };
            let width = label.len() as u32 * GLYPH.0;
            page.text(
                ((FRAME[0] as u32).saturating_sub(width + 10), (y as u32).saturating_sub(6)),
                &label,
                DETAIL,
            );
        }
        for i in 0..=count((self.steps / self.x_tick).floor()) {
            let step = i as f64 * self.x_tick;
            let (x, y) = self.at((step, self.bottom));
            line(&mut page.picture, (x.round(), y), (x.round(), y + 5.0), 0.5, FADED);
            let label = format!("{step}");
            let half = label.len() as u32 * GLYPH.0 / 2;
            page.text(((x as u32).saturating_sub(half), y as u32 + 10), &label, DETAIL);
        }
        let middle = (FRAME[0] + self.size.0 - FRAME[2]) / 2.0;
        page.text((middle as u32 - 2 * GLYPH.0, self.size.1 as u32 - 30), "step", DETAIL);
    }

    fn curve(&self, picture: &mut RgbImage, points: &[(f64, f64)], half_width: f32, colour: [u8; 3]) {
        let at = |&(x, y): &(f64, f64)| self.at((x, if y.is_finite() { y } else { self.top }));
        match points {
            [point] => line(picture, at(point), at(point), half_width + 0.5, colour),
            _ => points.windows(2).for_each(|w| line(picture, at(&w[0]), at(&w[1]), half_width, colour)),
        }
    }
}

/// The number of lines on an axis, limited to what fits.
fn count(ticks: f64) -> usize {
    ticks.round().clamp(0.0, 20.0) as usize
}

/// Whether a loss can be drawn: it is within the range of f32, as all losses of a training are.
pub fn is_drawn(loss: f64) -> bool {
    loss.abs() <= f64::from(f32::MAX)
}

/// The least number of at least `x` that is 1, 2 or 5 times a power of ten.
fn nice(x: f64) -> f64 {
    let power = 10f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|&n| n >= x * 0.999).unwrap_or(x)
}

/// The moving mean of the losses, over a twentieth of the run and at least five steps.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|p| is_drawn(p.1)).collect();
    let half = (finite.len() / 40).max(2);
    let mut sums = vec![0.0];
    sums.extend(finite.iter().scan(0.0, |sum, p| {
        *sum += p.1;
        Some(*sum)
    }));
    let mean = |i: usize| {
        // The window is symmetric, so that the ends have no bias.
        let reach = half.min(i).min(finite.len() - 1 - i);
        (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1) as f64
    };
    // The means at the ends have few points and would only show noise.
    let inner = if finite.len() > 4 * half { half / 2..finite.len() - half / 2 } else { 0..finite.len() };
    inner.map(|i| (finite[i].0, mean(i))).collect()
}

/// The least and the greatest point of each piece of a curve, if the curve has more points than the picture has pixels.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * MAX_POINTS {
        return points.to_vec();
    }
    let pieces = points.chunks(points.len().div_ceil(MAX_POINTS));
    pieces
        .flat_map(|piece| {
            let order = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let mut ends: Vec<(f64, f64)> = [piece.iter().min_by(order), piece.iter().max_by(order)]
                .into_iter()
                .flatten()
                .copied()
                .collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0));
            ends
        })
        .collect()
}

/// Draws a line with round ends, antialiased by coverage.
fn line(to: &mut RgbImage, a: (f32, f32), b: (f32, f32), half_width: f32, colour: [u8; 3]) {
    let reach = half_width + 1.0;
    let range = |a: f32, b: f32, end: u32| {
        let (low, high) = ((a.min(b) - reach).max(0.0) as u32, (a.max(b) + reach).max(0.0) as u32 + 1);
        low.min(end)..high.min(end)
    };
    let length = (b.0 - a.0).powi(2) + (b.1 - a.1).powi(2);
    for y in range(a.1, b.1, to.height()) {
        for x in range(a.0, b.0, to.width()) {
            let (px, py) = (x as f32 - a.0, y as f32 - a.1);
            let along = if length > 0.0 { (px * (b.0 - a.0) + py * (b.1 - a.1)) / length } else { 0.0 };
            let along = along.clamp(0.0, 1.0);
            let distance = (px - along * (b.0 - a.0)).hypot(py - along * (b.1 - a.1));
            let cover = (half_width + 0.5 - distance).clamp(0.0, 1.0);
            let pixel = to.get_pixel_mut(x, y);
            for (channel, colour) in pixel.0.iter_mut().zip(colour) {
                *channel = (f32::from(*channel) * (1.0 - cover) + f32::from(colour) * cover).round() as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (1200, 640);

    /// Protects the chart: any losses give a picture, and the same losses the same picture.
    #[test]
    fn any_losses_are_drawn() {
        let run = |training: Vec<(f64, f64)>, steps| {
            let losses = Losses { title: "a set".into(), validation: training.clone(), training, steps };
            let png = losses.chart(SIZE).png();
            assert_eq!(png, losses.chart(SIZE).png());
            let picture = image::load_from_memory(&png).expect("a PNG");
            assert_eq!((picture.width(), picture.height()), SIZE);
        };
        run(vec![], 0);
        run(vec![(1.0, 0.0)], 1);
        run(vec![(1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 1e30), (4.0, 1e-30)], 4);
        for wild in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, f64::from(f32::MAX), -1e300] {
            run(vec![(1.0, wild)], 1);
            run(vec![(1.0, wild), (2.0, 0.5), (3.0, f64::NAN)], usize::MAX);
        }
        run((1..5000).map(|i| (f64::from(i), 0.1 + 0.1 / f64::from(i))).collect(), 10_000);
    }

    /// Protects the axes: their numbers are round.
    #[test]
    fn ticks_are_round() {
        assert_eq!([0.03, 0.11, 1.0, 6.0, 125.0].map(nice), [0.05, 0.2, 1.0, 10.0, 200.0]);
    }
}
