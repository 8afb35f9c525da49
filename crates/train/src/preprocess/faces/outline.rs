//! The convex hull of points, and the pixels within.

use std::ops::Range;

use image::{GrayImage, Luma};

/// A convex polygon in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// (x, y) of its corners, in pixels, clockwise as seen.
    pub corners: Vec<[f32; 2]>,
}

impl Outline {
    /// The convex hull of points (Andrew's monotone chains). Points that are no numbers are left out.
    pub fn around(points: &[[f32; 2]]) -> Outline {
        let mut sorted: Vec<[f32; 2]> =
            points.iter().copied().filter(|point| point.iter().all(|at| at.is_finite())).collect();
        sorted.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
        sorted.dedup();
        let mut corners = chain(sorted.iter());
        if sorted.len() > 1 {
            corners.pop();
            corners.extend(chain(sorted.iter().rev()));
            corners.pop();
        }
        Outline { corners }
    }

    /// The rows of a picture of a size (width, height) that the polygon covers, with the columns in each: the pixels whose middle
    /// lies within.
    pub fn rows(&self, (width, height): (u32, u32)) -> impl Iterator<Item = (u32, Range<u32>)> {
        let heights = || self.corners.iter().map(|corner| corner[1]);
        let first = first_pixel(heights().fold(f32::INFINITY, f32::min), height);
        let end = first_pixel(heights().fold(f32::NEG_INFINITY, f32::max), height);
        (first..end).filter_map(move |row| {
            let [left, right] = self.across(row as f32 + 0.5)?;
            let columns = first_pixel(left, width)..first_pixel(right, width);
            (!columns.is_empty()).then_some((row, columns))
        })
    }

    /// Makes the pixels within white.
    pub fn fill(&self, mask: &mut GrayImage) {
        for (row, columns) in self.rows(mask.dimensions()) {
            columns.for_each(|column| mask.put_pixel(column, row, Luma([u8::MAX])));
        }
    }

    /// The left and the right end of the polygon at a height.
    fn across(&self, y: f32) -> Option<[f32; 2]> {
        let next = self.corners.iter().cycle().skip(1);
        let crossed = self.corners.iter().zip(next).filter(|(a, b)| (a[1] <= y) != (b[1] <= y));
        let at = crossed.map(|(a, b)| a[0] + (b[0] - a[0]) * ((y - a[1]) / (b[1] - a[1])));
        at.fold(None, |ends: Option<[f32; 2]>, x| {
            let [left, right] = ends.unwrap_or([x, x]);
            Some([left.min(x), right.max(x)])
        })
    }
}

/// The first of `count` pixels whose middle is at `at` or beyond.
fn first_pixel(at: f32, count: u32) -> u32 {
    // A number that is too large or too small for u32 becomes the nearest one.
    ((at - 0.5).ceil() as u32).min(count)
}

/// A half of the hull of points that are sorted from one end to the other.
fn chain<'a>(points: impl Iterator<Item = &'a [f32; 2]>) -> Vec<[f32; 2]> {
    let mut chain: Vec<[f32; 2]> = Vec::new();
    for &point in points {
        while let [.., a, b] = chain[..]
            && turn(a, b, point) <= 0.0
        {
            chain.pop();
        }
        chain.push(point);
    }
    chain
}

/// Positive where the way from `a` over `b` to `c` turns clockwise, as seen with y downward.
fn turn(a: [f32; 2], b: [f32; 2], c: [f32; 2]) -> f64 {
    let [a, b, c] = [a, b, c].map(|point| point.map(f64::from));
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(outline: &Outline, size: (u32, u32)) -> Vec<(u32, Range<u32>)> {
        outline.rows(size).collect()
    }

    /// Protects the hull: its corners alone, whatever is within or on its edges; of few points or none too.
    #[test]
    fn hulls() {
        let square = [[0., 0.], [2., 0.], [2., 2.], [0., 2.]];
        let all = [&square[..], &[[1., 1.], [1., 0.], [0., 0.], [f32::NAN, 9.]]].concat();
        assert_eq!(Outline::around(&all).corners, square);
        assert_eq!(Outline::around(&[]).corners, Vec::<[f32; 2]>::new());
        assert_eq!(Outline::around(&[[1., 1.]; 3]).corners, [[1., 1.]]);
        assert_eq!(Outline::around(&[[0., 0.], [1., 1.], [2., 2.]]).corners, [[0., 0.], [2., 2.]]);
    }

    /// Protects the pixels of an outline: those whose middle is within, in the picture alone.
    #[test]
    fn pixels_within() {
        let triangle = Outline::around(&[[0., 0.], [4., 0.], [0., 4.]]);
        assert_eq!(pixels(&triangle, (9, 9)), [(0, 0..3), (1, 0..2), (2, 0..1)]);
        let around = Outline::around(&[[-9., -9.], [99., -9.], [99., 99.], [-9., 99.]]);
        assert_eq!(pixels(&around, (3, 2)), [(0, 0..3), (1, 0..3)]);
        let outside = Outline::around(&[[-9., -9.], [-1., -9.], [-5., -1.]]);
        for none in [outside, Outline::around(&[]), Outline::around(&[[1., 1.]])] {
            assert_eq!(pixels(&none, (5, 5)), []);
        }
    }
}
